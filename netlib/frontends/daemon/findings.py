"""What `check` and `repair` found, as JSON and back: plans of nouns, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlib.codec import from_json, to_json
from netlib.errors import NetError, from_document, to_document
from netlib.model import Netns
from netlib.plan import Change, Create, Delete, Ensure, Plan, Stage, Step
from netlib.wiring import Announce, Effect, ForgetFlows, Layer, Noun, Wiring

if TYPE_CHECKING:
    from netlib.verbs.check import Finding, Repair

_EFFECTS: dict[str, type[Effect]] = {
    "Announce": Announce,
    "ForgetFlows": ForgetFlows,
}


def write(findings: tuple[Finding, ...]) -> list[Any]:
    """Findings as JSON values."""
    return [_finding(one) for one in findings]


def read(document: Any) -> tuple[Finding, ...]:
    """The findings that were written. Raises LookupError, TypeError, ValueError."""
    return tuple(_read_finding(one) for one in document)


def write_repair(repair: Repair) -> dict[str, Any]:
    """What a repair did, as a JSON value."""
    return {
        "mended": write(repair.mended),
        "failed": [
            {"finding": _finding(finding), "error": write_error(error)}
            for finding, error in repair.failed
        ],
        "skipped": write(repair.skipped),
    }


def read_repair(document: Any) -> Repair:
    """The repair that was written."""
    from netlib.verbs.check import Repair  # loads most verbs, and few who ask a daemon need it

    return Repair(
        mended=read(document["mended"]),
        failed=tuple(
            (_read_finding(one["finding"]), read_error(one["error"])) for one in document["failed"]
        ),
        skipped=read(document["skipped"]),
    )


def write_error(error: NetError) -> dict[str, Any]:
    """An error as a JSON value."""
    return {**to_document(error), "exit_status": error.exit_status}


def read_error(document: Any) -> NetError:
    """The error that was written."""
    error = from_document(document)
    error.exit_status = document.get("exit_status", error.exit_status)
    return error


def _finding(finding: Finding) -> dict[str, Any]:
    plan = finding.plan
    return {
        "subject": finding.subject,
        "note": finding.note,
        "stages": [
            {
                "layer": int(stage.layer),
                "netns": to_json(stage.netns),
                "steps": [_step(step) for step in stage.steps],
            }
            for stage in plan.stages
        ],
        "after": [{"effect": type(one).__name__, **to_json(one)} for one in plan.after],
    }


def _read_finding(document: Any) -> Finding:
    from netlib.verbs.check import Finding  # likewise

    stages = tuple(
        Stage(
            Layer(stage["layer"]),
            from_json(Netns, stage["netns"]),
            tuple(_read_step(step) for step in stage["steps"]),
        )
        for stage in document["stages"]
    )
    after = tuple(from_json(_EFFECTS[one["effect"]], one) for one in document["after"])
    return Finding(subject=document["subject"], plan=Plan(stages, after), note=document["note"])


def _step(step: Step) -> dict[str, Any]:
    """A step and the nouns that it is about."""
    if isinstance(step, Change):
        nouns: tuple[Noun, ...] = (step.old, step.new)
    elif isinstance(step, Delete):
        nouns = (step.noun, *step.along)
    else:
        nouns = (step.noun,)
    return {"do": type(step).__name__, "nouns": to_json(nouns)}


def _read_step(document: Any) -> Step:
    first, *more = (noun for one in document["nouns"] for noun in from_json(Wiring, [one]))
    match document["do"]:
        case "Change":
            return Change(first, *more)
        case "Delete":
            return Delete(first, tuple(more))
        case "Ensure":
            return Ensure(first)
        case "Create":
            return Create(first)
    raise ValueError(f"no step is called {document['do']!r}")
