"""`memory cleanup | status | verify | doctor`: the pipeline's own state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, out, print_json
from api_stub.doctor import examine
from api_stub.home import connected_settings
from api_stub.pipeline_client import PipelineClient
from memory.cleanup import CleanupPolicy
from memory.validation import check_types

if TYPE_CHECKING:
    from memory.status import Status


def cleanup(
    max_age_days: Annotated[float | None, typer.Option(min=0, help="Spare what is younger.")] = None,
    min_importance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Spare what is as important.")
    ] = None,
    memory_type: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type; repeatable.")
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Really forget; else only count.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Past the brake.")] = False,
    json: JsonOption = False,
) -> None:
    """Forget what is both old and unimportant. Counts only, unless --apply is given.

    Thresholds that are not given come from the settings.

    Example: memory cleanup --max-age-days 90 --min-importance 0.2 --apply
    """
    settings = connected_settings()
    policy = CleanupPolicy(
        max_age_days=settings.cleanup_max_age_days if max_age_days is None else max_age_days,
        min_importance=settings.cleanup_min_importance if min_importance is None else min_importance,
        memory_types=check_types(memory_type or None),
        namespace=namespace,
        brake_share=settings.cleanup_brake_share,
        brake_count=settings.cleanup_brake_count,
    )
    with PipelineClient(settings) as client:
        report = client.cleanup(policy, dry_run=not apply, force=force)
    if json:
        print_json(report.as_json())
        return
    verb = "would forget" if report.dry_run else "forgot"
    n = report.total_found if report.dry_run else report.deleted
    out.print(
        f"{verb} {n} memories older than {policy.max_age_days:g} days and less important than "
        f"{policy.min_importance:g}"
    )
    for name, count in sorted(report.by_namespace.items()):
        out.print(f"  {name}: {count}", markup=False)


def status(
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where somebody must look: degraded or stuck.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say whether the pipeline is ok, lagging, degraded or stuck, and why; then show every count and lag.

    Example: memory status --check --json
    """
    with MemoryClient.from_env() as client:
        found = client.status()
    if json:
        print_json(found.as_json())
    else:
        _print_status(found)
    if check and found.verdict.needs_a_look:
        raise typer.Exit(Exit.PARTLY)


def _print_status(found: Status) -> None:
    out.print(f"{found.verdict.state}: {found.verdict.reason}", markup=False)
    report = found.as_json()
    jobs = report.pop("jobs")
    del report["verdict"]
    table = Table(box=None, show_header=False)
    for name, value in report.items():
        table.add_row(name.replace("_", " "), _shown(value))
    for name, job in jobs.items():
        last_ok_s = job["last_ok_s"]
        table.add_row(f"{name}, last good run", "-" if last_ok_s is None else f"{last_ok_s:,.0f} s ago")
    out.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ("; ".join(value) if isinstance(value, tuple) else str(value or "-")).replace("[", r"\[")


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is found; what is replaced goes to the quarantine.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds.")] = 600,
    json: JsonOption = False,
) -> None:
    """Audit the index against the database, the snapshots, the rows, the events and the streams.

    Every id, a sample of the vectors byte by byte (with --repair all of them), every checksum.
    Exits 1 if anything is not as it must be, or is so still after the repair.

    Example: memory verify --repair --json
    """
    with MemoryClient.from_env() as client:
        audit = client.verify(repair=repair, timeout_s=timeout_s)
    if json:
        print_json(audit)
    else:
        _print_audit(audit)
    if not audit["clean"]:
        raise typer.Exit(Exit.PARTLY)


def _print_audit(audit: dict[str, Any]) -> None:
    word = "equal" if audit["equal"] else "NOT EQUAL"
    out.print(
        f"index and database are {word} at write {audit['seq']}: "
        f"{audit['n_memories']} memories, {audit['n_vectors']} vectors, "
        f"{audit['n_missing']} missing, {audit['n_extra']} extra, "
        f"{audit['n_different']} of {audit['n_sampled']} compared vectors different"
    )
    for finding in audit["findings"]:
        places = ", ".join(str(place) for place in finding["examples"])
        out.print(f"  {finding['kind']}: {finding['n']} {finding['means']} ({places})", markup=False)
    repair = audit.get("repair", {})
    for line in (*repair.get("done", ()), *(f"kept in {path}" for path in repair.get("kept", ()))):
        out.print(f"  {line}", markup=False)
    for line in repair.get("not_repaired", ()):
        out.print(f"  not repaired: {line}", markup=False)
    if not audit["findings"]:
        out.print("snapshots, rows, events and streams are as they must be")


def doctor(json: JsonOption = False) -> None:
    """Check what this machine has, and whether the stack is well; say what to do where not.

    Exits 1 if something is wrong.

    Example: memory doctor
    """
    findings = examine()
    if json:
        print_json([{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings])
    else:
        table: Any = Table(box=None, show_header=False)
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]wrong[/]"
            table.add_row(mark, finding.check, finding.detail.replace("[", r"\["))
        out.print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(Exit.PARTLY)
