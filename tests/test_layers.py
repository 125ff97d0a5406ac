"""The walls between the modules: each imports lower layers only, the pure ones know neither trio nor a clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cronactors"

# From the bottom to the top. A module imports modules of earlier lines only.
LAYERS = """
backoff cli.amounts cli.hang_up cli.listed_line errors health instants storage.postgres.arrays storage.values
storage.pauses storage.postgres.execution
checks json_value storage.postgres.address storage.postgres.server_clock storage.pruning storage.run_output
executor_options job_data retention storage.postgres.run_output tags toml_text
schedules.calendar schedules.cron_fields schedules.finding schedules.zone_advice
schedules.local_times schedules.zones
schedules.clock_changes schedules.cron_advice
schedules.cron schedules.cron_in_zone schedules.timestamps
cli.times schedules.schedule
cli.options schedules.fire_times schedules.schedule_json schedules.words
model schedules.lint_cron schedules.preview schedules.zone_rules shell.checks shell.lint
cli.moments crontab_command events schedules.comparison schedules.lint spec
crontab settings
policy
run_output
config_file ids owner run_context wallclock
cli.log_format cli.schedule_options storage.creation storage.errors storage.file_state storage.migrations storage.moved storage.row_statement storage.rows storage.stop_marks
alerts cli.run_words storage.history storage.postgres.columns storage.postgres.errors
storage.history_reader storage.postgres.connecting storage.postgres.pauses
ledger.notification_columns log_fields notifications run_stats storage.execution storage.notifications storage.postgres.history storage.postgres.jobs storage.postgres.listener storage.postgres.session storage.run_requests storage.schema storage.statements
ledger.alert_texts storage.backup storage.compaction storage.connection storage.postgres.migrations storage.postgres.notifications storage.postgres.run_requests storage.postgres.runs storage.sqlite_history storage.sqlite_jobs storage.sqlite_notifications storage.sqlite_pauses storage.sqlite_run_output storage.sqlite_run_requests storage.tables
storage.postgres.figures storage.protocol
ledger.history ledger.pruning_clock ledger.totals storage.opened storage.postgres.pruning storage.postgres.schema storage.sqlite_pruning
storage.postgres.storage storage.sqlite
storage.postgres.copying storage.read_only storage.sqlite_copying
ledger.job_fields ledger.leases ledger.new_rows ledger.open_runs ledger.run_requests ledger.stored_values
ledger.after_run ledger.owners ledger.views ledger.waiting ledger.zone_changes
ledger.explain
actors.observed_storage ledger.alerting ledger.pausing ledger.pruning
ledger.clock_set_back
ledger.damage ledger.due_moments ledger.finish ledger.jobs ledger.sweep
ledger.cancel_other ledger.claim_together ledger.recovery ledger.runs ledger.upsert
ledger.notifications ledger.run_output
ledger.claim
ledger.own_loop
notification_context
actors.async_value actors.exception_groups actors.failure_log actors.forks actors.output_buffer actors.stopping actors.watchdog
actors.exits actors.mailbox actors.storage_thread actors.tracebacks actors.user_code
actors.actor_requests actors.alert_requests actors.history_requests actors.notification_requests actors.outcomes actors.output_requests actors.recompute actors.store actors.user_requests cli.run_changes cli.run_details
actors.event_stream actors.inbox actors.output
actors.deliverer actors.leases actors.run_in_hand
actors.store_lifetime actors.wall_clock_watch
actors.receivers
actors.finisher
actors.pool
actors.clock actors.lease_guard actors.runner
actors.overdue actors.patrol actors.pruner copying fake_run origins own_loop run_log_handler shell.exit_status shell.live_lines shell.process_group
cli.report shell.output verbs.base
shell.executor verbs.history verbs.jobs verbs.loops verbs.notifications verbs.run_output verbs.runs
executors store
cli.living
cli.checks cli.find scheduler
supervision
cronactors testing
cli.compact cli.container_init cli.copy cli.database cli.describe cli.remove cli.signals cli.stdout
cli.removed
cli.backup cli.doctor cli.json_report cli.printer cli.reload cli.run_query cli.run_report cli.schedules cli.tables cli.toml_output cli.why
cli.export cli.import_crontab cli.listing cli.moment_words cli.prune cli.run cli.why_removed
cli.explain cli.file_commands cli.jobs cli.notifications cli.show cli.stats cli.watch_reader
cli.show_run cli.update cli.watch_events cli.watch_store cli.watch_view cli.why_commands
cli.job_commands cli.watch_screen
cli.watch
cli.history_commands
cli.commands
cli
"""
RANK = {module: rank for rank, line in enumerate(LAYERS.split("\n")) for module in line.split()}

# The wings as packages hold nothing but their docstrings.
EMPTY = {"schedules", "shell", "storage", "storage.postgres", "ledger", "actors", "verbs"}
PURE = {
    "errors", "storage.postgres.address", "instants", "backoff", "checks", "json_value", "executor_options", "job_data", "tags", "alerts", "retention", "health", "model", "events", "run_output", "spec", "settings", "policy", "shell.checks", "shell.lint",
    "schedules.zone_advice", "schedules.zones", "schedules.clock_changes", "schedules.calendar", "schedules.local_times",
    "schedules.cron_advice", "schedules.cron_fields", "schedules.cron", "schedules.cron_in_zone", "schedules.timestamps",
    "schedules.schedule", "schedules.fire_times", "schedules.schedule_json", "schedules.zone_rules", "schedules.preview",
    "schedules.finding", "schedules.lint_cron", "schedules.lint", "schedules.words", "schedules.comparison",
    "toml_text", "crontab_command", "crontab",
}  # fmt: skip

# What is hidden in one place each, so that it can be replaced there.
ONE_PLACE = {
    "croniter": "schedules.calendar",
    "trio_util": "actors.async_value",
    "sqlite_utils": "storage.migrations",
    "pytest": "testing",
}

# Calls by these names ask a clock; `datetime.time(...)` is used as `time` nowhere.
ASKS_A_CLOCK = {"now", "utcnow", "today", "time", "monotonic", "current_time", "system_wall", "virtual_time"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "cronactors"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Every import, wherever it stands: the module, and the name taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                yield node.module or "", alias.name


def ours(tree: ast.AST) -> Iterator[str]:
    """Our own modules among the imports, without the name of the package."""
    for module, name in imports(tree):
        if module.partition(".")[0] != "cronactors":
            continue
        inside = module.partition(".")[2]
        taken = f"{inside}.{name}".strip(".") if name else inside
        yield taken if taken in MODULES else inside or "cronactors"


def others(tree: ast.AST) -> set[str]:
    """The other packages among the imports, by the first part of their names."""
    return {module.partition(".")[0] for module, _ in imports(tree)} - {"cronactors"}


def test_every_module_has_its_layer():
    assert set(MODULES) == set(RANK) | EMPTY


@pytest.mark.parametrize("module", sorted(EMPTY))
def test_a_package_of_modules_holds_nothing(module):
    assert not list(imports(TREES[module]))


@pytest.mark.parametrize("module", sorted(RANK))
def test_a_module_imports_lower_layers_only(module):
    upward = sorted({other for other in ours(TREES[module]) if RANK[other] >= RANK[module]})
    assert not upward, f"{module} must not import {', '.join(upward)}"


@pytest.mark.parametrize("module", sorted(RANK))
def test_nothing_but_the_command_line_imports_it_or_the_package_as_a_whole(module):
    if not module.startswith("cli"):
        assert not [other for other in ours(TREES[module]) if other == "cronactors" or other.startswith("cli")]


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_knows_neither_trio_nor_a_database_nor_threads(module):
    forbidden = {"trio", "trio_util", "outcome", "sqlite3", "sqlite_utils", "threading", "asyncio", "random", "os", "time"}
    assert not others(TREES[module]) & forbidden
    assert set(ours(TREES[module])) <= PURE


def test_every_module_of_schedules_is_pure():
    assert {module for module in MODULES if module.startswith("schedules.")} <= PURE


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_never_asks_for_the_time(module):
    called = [node.func for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    names = {node.attr for node in called if isinstance(node, ast.Attribute)} | {
        node.id for node in called if isinstance(node, ast.Name)
    }
    assert not names & ASKS_A_CLOCK
    assert not [node for node in ast.walk(TREES[module]) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize(("package", "place"), ONE_PLACE.items())
def test_a_package_is_known_in_one_place(package, place):
    assert [module for module in MODULES if package in others(TREES[module])] == [place]


def test_only_tables_and_the_live_view_are_drawn_by_rich():
    assert {module for module in MODULES if "rich" in others(TREES[module])} == {"cli.tables", "cli.watch_screen"}


def test_only_the_storage_knows_sqlite():
    knowing = {module for module in MODULES if "sqlite3" in others(TREES[module])}
    assert knowing == {
        f"storage.{module}"
        for module in ("errors", "migrations", "schema", "connection", "compaction", "execution", "backup", "read_only")
    }


def test_only_the_command_line_knows_click():
    knowing = {module for module in MODULES if "click" in others(TREES[module])}
    assert knowing
    assert all(module.startswith("cli") for module in knowing)


def test_importing_the_package_loads_nothing_that_only_some_need():
    script = "import sys, cronactors; print(*sorted(sys.modules))"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(process.stdout.split())
    assert {"cronactors.scheduler", "trio"} <= loaded
    unwanted = {"cronactors.cli", "cronactors.testing", "click", "rich", "sqlite_utils", "pytest", "hypothesis", "trio.testing"}
    unwanted |= {"cronactors.events", "cronactors.actors.observed_storage", "cronactors.run_stats"}
    unwanted |= {"tomllib", "croniter", "cronactors.config_file", "cronactors.schedules.lint", "cronactors.schedules.preview"}
    assert not loaded & unwanted


def test_importing_the_tests_help_works_without_pytest():
    script = "import sys; sys.modules['pytest'] = None; import cronactors.testing as t; print(t.make_context().job_name)"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "job\n"


# What the checks above rest on


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import cronactors", ["cronactors"]),
        ("from cronactors import __version__", ["cronactors"]),
        ("from cronactors import checks", ["checks"]),
        ("from cronactors.ledger import claim, jobs", ["ledger.claim", "ledger.jobs"]),
        ("from cronactors.ledger.leases import LEASE", ["ledger.leases"]),
        ("import cronactors.cli.listing", ["cli.listing"]),
        ("def f():\n    from cronactors.cli import listing", ["cli.listing"]),
        ("if TYPE_CHECKING:\n    from cronactors.store import CronStore", ["store"]),
        ("import trio, cronactors_other", []),
    ],
)
def test_imports_are_found_wherever_they_stand(source, found):
    assert list(ours(ast.parse(source))) == found
