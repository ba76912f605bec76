"""The tool that says whether this server is connected to Segment, and what is wrong."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from segment_tools.checking import LEVELS, Check, Level, Report
from segment_tools.client import Segment
from segment_tools.spec.arguments import Arguments, one_of
from segment_tools.tools._answer import Answer
from segment_tools.tools._tool import Caller, tool

_Level: TypeAlias = Annotated[Level | None, one_of(*LEVELS)]


class ConnectionArguments(Arguments):
    """How far the test goes."""

    level: _Level = Field(
        default=None,
        description="config asks nobody; probe (default) writes nothing; send writes one test event",
    )


class Checked(BaseModel):
    """What is known of one credential or address."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    name: str
    set: bool
    address: str | None = None
    reachable: bool | None = None
    milliseconds: int | None = None
    status: int | None = None
    ok: bool | None = None
    message: str
    hint: str | None = None
    key_verified: bool | None = None
    key_status: str | None = None
    destinations: list[str] | None = None


class Connection(Answer):
    """The report of a connection test."""

    ready: bool
    level: str
    region: str
    key_verified: bool | None = None
    key_status: str
    destinations: list[str]
    checks: list[dict[str, Any]]
    problems: list[str]
    remarks: list[str]
    message_id: str | None = None


_VERIFIED = {"known": True, "unknown_key": False, "unknown": None}


def shown(report: Report) -> Connection:
    """The report as it is answered."""
    return Connection(
        ready=report.ready,
        level=report.level,
        region=report.region,
        key_verified=_VERIFIED[report.key_status],
        key_status=report.key_status,
        destinations=list(report.destinations),
        checks=[_checked(check).model_dump(by_alias=True, exclude_none=True) for check in report.checks],
        problems=list(report.problems),
        remarks=list(report.remarks),
        message_id=report.message_id,
    )


def _checked(check: Check) -> Checked:
    return Checked(
        name=check.name,
        set=check.is_set,
        address=check.address,
        reachable=check.reachable,
        milliseconds=check.milliseconds,
        status=check.status,
        ok=check.ok,
        message=check.message,
        hint=check.hint or None,
        key_verified=_VERIFIED[check.key_status] if check.key_status else None,
        key_status=check.key_status,
        destinations=list(check.destinations) if check.key_status == "known" else None,
    )


@tool(title="Test the connection", toolset="connection", read_only=True, idempotent=True)
async def segment_test_connection(arguments: ConnectionArguments, segment: Segment, caller: Caller) -> Connection:
    """Say whether this server is connected to Segment, and what to mend.

    Use it when messages do not arrive, before a first send, or to learn destination names for integrations (exact,
    case-sensitive; some in cloud mode may be missing). It reaches the data plane and looks up write keys and profile
    token without writing; level send writes one event named 'App Sync Test'. ready tells how it went, problems what
    to do. keyVerified is left out when nobody knows; keyStatus is then unknown, else known or unknown_key. Example:
    {"level": "probe"}
    """
    if arguments.level == "send" and not segment.settings.read_only:
        await _admitted(caller, segment)
    return shown(await segment.check(arguments.level or "probe"))


async def _admitted(caller: Caller, segment: Segment) -> None:
    """Return once the test's event may be sent; nobody is asked for one that cannot be."""
    asked = caller.asked([segment.test_event])
    segment.guard.check(asked)
    if segment.guard.asks(asked) and (segment.settings.write_key or segment.settings.sources):
        await segment.preview(segment.test_event)
        await segment.guard.agree(asked)


TOOLS = (segment_test_connection,)
