"""`memory cleanup | status | verify | doctor`: the pipeline's own state."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, out, print_json
from api_stub.doctor import examine
from api_stub.home import connected_settings
from memory.cleanup import CleanupPolicy
from memory.validation import check_types


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
    with MemoryClient(settings) as client:
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


def status(json: JsonOption = False) -> None:
    """Show how many memories are in each state, and what lags.

    Example: memory status --json
    """
    with MemoryClient.from_env() as client:
        report = client.status().as_json()
    if json:
        print_json(report)
        return
    jobs = report.pop("jobs")
    table = Table(box=None, show_header=False)
    for name, value in report.items():
        table.add_row(name.replace("_", " "), "-" if value is None else f"{value:,}")
    for name, job in jobs.items():
        table.add_row(f"{name}, last good run", f"{job['last_ok_s']:,.0f} s ago" if job["last_ok_s"] else "-")
    out.print(table)


def verify(
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds.")] = 600,
    json: JsonOption = False,
) -> None:
    """Compare the index with the database: every id, and a sample of vectors byte by byte.

    Exits 1 if they differ.

    Example: memory verify --json
    """
    with MemoryClient.from_env() as client:
        comparison = client.verify(timeout_s=timeout_s)
    if json:
        print_json(comparison)
    else:
        word = "equal" if comparison["equal"] else "NOT EQUAL"
        out.print(
            f"index and database are {word} at write {comparison['seq']}: "
            f"{comparison['n_memories']} memories, {comparison['n_vectors']} vectors, "
            f"{comparison['n_missing']} missing, {comparison['n_extra']} extra, "
            f"{comparison['n_different']} of {comparison['n_sampled']} sampled vectors different"
        )
    if not comparison["equal"]:
        raise typer.Exit(Exit.PARTLY)


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
