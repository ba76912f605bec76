"""DataFrames written to Segment by a Spark that runs here, against the sandbox."""

import json
import os
import pickle
import re
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis as redis_client
from pyspark import TaskContext, cloudpickle
from pyspark.errors import PythonException
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import BinaryType, DoubleType, MapType, StringType, StructField, StructType, TimestampType
from support import KEY, ROOT, WAIT, arrived, rows, settings

from segment_tools import InvalidMessage, NotConfigured, Sandbox, Settings
from segment_tools.bulk.spark import Report, write_segment
from segment_tools.bulk.spark.values import Unfit, json_value
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.sources import Sources

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import tests

OTHER_KEY = "wk-OTHER-77c1d09ab3"
ORDERS = {"userId": "customer", "properties.order_id": "order", "properties.total": "amount"}


def at(sandbox: Sandbox, **values: Any) -> Settings:
    return settings(data_plane_url=sandbox.url, **values)


def orders(spark: SparkSession, count: int, partitions: int = 4) -> Any:
    """Orders of 50 customers, each customer's in one partition, in an order that is always the same."""
    made = spark.range(count).select(
        sf.col("id").alias("order"),
        sf.concat(sf.lit("u"), sf.col("id") % 50).alias("customer"),
        (sf.col("id") / 4).cast("decimal(10,2)").alias("amount"),
        sf.repeat(sf.lit("x"), 400).alias("note"),
    )
    return made.repartition(partitions, "customer").sortWithinPartitions("order")


def writing(name: str, chosen: Settings | None, **values: Any) -> Any:
    defaults = {
        "type": "track",
        "constants": {"event": "Order Completed"},
        "map": {**ORDERS, "properties.note": "note"},
    }
    return write_segment(name, chosen, **{**defaults, **values})


def failing(rows: Iterator[Row], after: int, begun: Callable[[int], bool], killed: int = -1) -> Iterator[Row]:
    """The rows; in a partition's first attempt only so many, then, once something has arrived, the machine is lost.

    Of one partition the process is killed, the others meet with an error.
    """
    context = TaskContext.get()
    for number, row in enumerate(rows):
        if number == after and context.attemptNumber() == 0:
            waited_for(lambda: begun(context.partitionId()), bool)
            if context.partitionId() == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the machine is lost")
        yield row


def waited_for(look: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
    for _ in range(WAIT * 10):
        if done(found := look()):
            return found
        threading.Event().wait(0.1)
    raise TimeoutError


def test_every_row_arrives_once_and_the_report_counts_them(spark: SparkSession, sandbox: Sandbox) -> None:
    report = Report(spark)
    orders(spark, 2000).foreachPartition(writing("all", at(sandbox), report=report))
    messages = arrived(sandbox)
    assert sorted(each["properties"]["order_id"] for each in messages) == list(range(2000))
    assert len({each["messageId"] for each in rows_of(sandbox)}) == len(rows_of(sandbox)) == 2000
    counts = report.counts
    assert (counts.rows, counts.accepted, counts.rejected) == (2000, 2000, 0)
    assert counts.kinds == {("track", "Order Completed"): 2000}
    assert counts.requests > 3
    assert 0 < counts.sent_bytes < counts.bytes
    assert (report.partitions, report.before, report.resumed, report.unused) == (4, 0, 0, ())
    assert "2,000 accepted" in str(report)
    assert report.as_dict()["messages"] == [{"type": "track", "event": "Order Completed", "count": 2000}]


def rows_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [row["sent"] for row in rows(sandbox)]


def test_each_users_messages_arrive_in_order(spark: SparkSession, sandbox: Sandbox) -> None:
    orders(spark, 3000).foreachPartition(writing("order", at(sandbox)))
    by_user: dict[str, list[int]] = defaultdict(list)
    for message in arrived(sandbox):
        by_user[message["userId"]].append(message["properties"]["order_id"])
    assert len(by_user) == 50
    assert all(found == sorted(found) for found in by_user.values())


def test_a_lost_attempt_is_gone_on_with_from_its_checkpoint(
    spark: SparkSession, sandbox: Sandbox, tmp_path: Path
) -> None:
    report = Report(spark)
    bad = sf.when(sf.col("order") % 97 == 7, sf.lit(None)).otherwise(sf.col("customer"))
    frame = orders(spark, 4000, 2).withColumn("customer", bad)
    write = writing("lost", at(sandbox), checkpoints=tmp_path / "c", rejected=tmp_path / "r", report=report)
    noted = tmp_path / "c"

    def begun(partition: int) -> bool:
        return (noted / f"part-{partition:05}.json").exists()

    frame.rdd.mapPartitions(lambda found: failing(found, 1500, begun, killed=1)).foreachPartition(write)
    messages = arrived(sandbox)
    assert sorted(each["properties"]["order_id"] for each in messages) == [n for n in range(4000) if n % 97 != 7]
    counts = report.counts
    assert (counts.rows, counts.accepted, counts.rejected) == (4000, 3958, 42)
    assert report.resumed > 0
    lines = [json.loads(line) for path in sorted((tmp_path / "r").iterdir()) for line in path.read_text().splitlines()]
    assert sorted(each["row"]["order"] for each in lines) == list(range(7, 4000, 97))
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"part-00000.jsonl", "part-00001.jsonl"}

    again = Report(spark)
    before = len(rows(sandbox))
    frame.foreachPartition(writing("lost", at(sandbox), checkpoints=tmp_path / "c", report=again))
    assert len(rows(sandbox)) == before
    assert (again.partitions, again.before, again.counts.accepted) == (2, 2, 3958)


def test_what_is_sent_twice_has_the_same_ids(spark: SparkSession, sandbox: Sandbox) -> None:
    frame, url = orders(spark, 4000, 2), sandbox.url

    def begun(_: int) -> bool:
        with urlopen(f"{url}/_sandbox/messages?limit=1") as answer:
            return bool(json.load(answer)["messages"])

    frame.rdd.mapPartitions(lambda found: failing(found, 1500, begun)).foreachPartition(writing("twice", at(sandbox)))
    frame.foreachPartition(writing("twice", at(sandbox)))
    assert sorted(each["properties"]["order_id"] for each in arrived(sandbox)) == list(range(4000))
    assert len(rows(sandbox)) > 8000  # those of the lost attempts, too


def test_rejected_rows_are_told_with_their_reasons(spark: SparkSession, sandbox: Sandbox, tmp_path: Path) -> None:
    schema = StructType(
        [
            StructField("userId", StringType()),
            StructField("score", DoubleType()),
            StructField("raw", BinaryType()),
            StructField("unused", BinaryType()),
        ]
    )
    given = [
        ("u1", 1.5, None, bytearray(b"\xff")),
        ("u2", float("nan"), None, None),
        ("u3", float("inf"), None, None),
        ("u4", None, bytearray(b"\x00\x01"), None),
        (None, 2.0, None, None),
        ("u6", 3.0, None, None),
    ]
    report = Report(spark)
    write = write_segment(
        "odd",
        at(sandbox),
        type="track",
        constants={"event": "Scored", "properties.version": 3},
        map={"properties.score": "score", "properties.raw": "raw"},
        rejected=tmp_path,
        report=report,
    )
    spark.createDataFrame(given, schema).coalesce(1).foreachPartition(write)
    assert [(each["userId"], each["properties"]) for each in arrived(sandbox)] == [
        ("u1", {"version": 3, "score": 1.5}),
        ("u6", {"version": 3, "score": 3.0}),
    ]
    assert [(each.partition, each.row, each.code) for each in report.rejections] == [
        (0, 2, "invalid_value"),
        (0, 3, "invalid_value"),
        (0, 4, "invalid_value"),
        (0, 5, "missing_field"),
    ]
    assert [each.message.rstrip(".").split(", ")[0] for each in report.rejections[:3]] == [
        "Column 'score' is NaN",
        "Column 'score' is infinite",
        "Column 'raw' is binary",
    ]
    assert all(each.hint for each in report.rejections)
    assert report.counts.rejected == 4
    assert report.unused == ("unused",)
    assert "row 2: Column 'score' is NaN" in str(report)
    lines = [json.loads(line) for line in (tmp_path / "part-00000.jsonl").read_text().splitlines()]
    assert [(line["line"], line["row"].get("userId")) for line in lines] == [(2, "u2"), (3, "u3"), (4, "u4"), (5, None)]


def test_two_sources_from_the_executors_environment(spark: SparkSession) -> None:
    known = Sources({KEY: "web", OTHER_KEY: "app"})
    with Sandbox(options=Options(sources=known)) as sandbox:
        spark.sparkContext.environment |= {
            "SEGMENT_SOURCES": json.dumps({"web": KEY, "app": OTHER_KEY}),
            "SEGMENT_DATA_PLANE_URL": sandbox.url,
        }
        frame = orders(spark, 20, 2)
        for source in ("web", "app"):
            write = writing("sources", None, source=source)
            assert KEY.encode() not in cloudpickle.dumps(write)
            frame.foreachPartition(write)
        assert Counter(row["source"] for row in rows(sandbox)) == {"web": 20, "app": 20}
        assert len(arrived(sandbox)) == 40
        with pytest.raises(PythonException, match="source is required: several are configured"):
            frame.foreachPartition(writing("sources", None))


@pytest.mark.parametrize("file", ["README.md", "docs/spark.md"])
def test_the_documented_programs_do_what_they_say(
    file: str, spark: SparkSession, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spark.sparkContext.environment |= {"SEGMENT_WRITE_KEY": KEY, "SEGMENT_DATA_PLANE_URL": sandbox.url}
    given = spark.sql("""
        SELECT id AS order_id, concat('u', id % 3) AS customer_id, timestamp'2026-03-01 12:30:45Z' AS ordered_at,
               CAST(id / 4 AS DECIMAL(10,2)) AS amount FROM range(12)
    """)
    given.coalesce(1).write.parquet(str(tmp_path / "data"))
    program = re.findall(r"```py\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)[0]
    for before, after in (("/data/orders/2026", tmp_path / "data"), ("/mnt/shared", tmp_path), ("(64", "(2")):
        program = program.replace(before, str(after))
    exec(program, {"spark": spark, "df": given})
    assert "12 rows in 2 partitions, 12 accepted, 0 rejected" in capsys.readouterr().out
    messages = arrived(sandbox)
    assert sorted((each["userId"], each["properties"]["total"]) for each in messages) == sorted(
        (f"u{number % 3}", number / 4) for number in range(12)
    )
    if file != "README.md":
        assert {each["originalTimestamp"] for each in messages} == {"2026-03-01T12:30:45.000Z"}


def test_types_are_carried_faithfully(spark: SparkSession, sandbox: Sandbox) -> None:
    spark.sparkContext.environment["TZ"] = "America/New_York"
    frame = spark.sql("""
        SELECT 'identify' AS type, 'u1' AS userId, 'm-1' AS messageId,
               timestamp'2026-03-01 12:30:45.123456+02:00' AS timestamp,
               named_struct(
                 'text', 'Zoë', 'flag', true, 'whole', 9007199254740993L, 'real', 0.1D,
                 'cents', CAST(12.34 AS DECIMAL(38,18)), 'round', CAST(5 AS DECIMAL(10,2)),
                 'day', date'2026-02-28', 'moment', timestamp'2026-02-28 23:59:59+00:00',
                 'clock', timestamp_ntz'2026-02-28 23:59:59',
                 'list', array(named_struct('sku', 'a', 'at', timestamp_ntz'2026-01-01 00:00:00'), null),
                 'map', map('a', 1, 'b', null), 'numbered', map(1, 'x'), 'none', CAST(null AS STRING),
                 'variant', parse_json('{"deep": [1, {"x": null}]}')
               ) AS traits,
               map('ip', '10.0.0.1') AS context
    """)
    report = Report(spark)
    frame.foreachPartition(write_segment("types", at(sandbox), schema=frame.schema, report=report))
    assert report.rejections == ()
    message = arrived(sandbox)[0]
    assert message["messageId"] == "m-1"
    assert message["originalTimestamp"] == "2026-03-01T10:30:45.123456Z"
    assert message["context"]["ip"] == "10.0.0.1"
    assert message["traits"] == {
        "text": "Zoë",
        "flag": True,
        "whole": 9007199254740993,
        "real": 0.1,
        "cents": 12.34,
        "round": 5,
        "day": "2026-02-28",
        "moment": "2026-02-28T23:59:59.000Z",
        "clock": "2026-02-28T23:59:59.000Z",
        "list": [{"sku": "a", "at": "2026-01-01T00:00:00.000Z"}, None],
        "map": {"a": 1, "b": None},
        "numbered": {"1": "x"},
        "none": None,
        "variant": {"deep": [1, {"x": None}]},
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("-inf"), "is infinite"),
        (Decimal("0.12345678901234567891"), "has more digits"),
        (bytearray(b"x"), "is binary"),
        ({date(2026, 1, 1): 1}, "has keys that are no text"),
        (timedelta(days=1), "holds a timedelta"),
        (datetime(1, 1, 1, tzinfo=UTC).replace(tzinfo=None), ""),
    ],
)
def test_what_json_has_not_is_refused_with_a_mend(value: Any, says: str) -> None:
    if not says:
        assert str(json_value(value, "c", frozenset({"c"}))).startswith("0001-01-01")
        return
    with pytest.raises(Unfit) as error:
        json_value(Row(inner=[value]), "c")
    assert error.value.problem.message.startswith(f"Column 'c.inner.element' {says}")
    assert error.value.problem.hint


def test_a_refused_key_fails_the_task_with_our_text_and_no_secret_anywhere(
    spark: SparkSession, event_log: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Sandbox() as sandbox:
        sandbox.fault(status=401, times=1000)
        frame = orders(spark, 20, 1).withColumn("customer", sf.lit("ada@example.com"))
        write = writing("refused", at(sandbox))
        assert KEY not in repr(write)
        with pytest.raises(PythonException, match="check the write key") as error:
            frame.foreachPartition(write)
    assert "Unauthorized" in str(error.value)
    logged = waited_for(
        lambda: _events(event_log), lambda text: "Unauthorized" in text and "SparkListenerJobEnd" in text
    )
    captured = capfd.readouterr()
    for text in (str(error.value), logged, captured.out, captured.err, frame.rdd.toDebugString().decode()):
        assert KEY not in text
        assert "ada@example.com" not in text or text == logged  # the plan of this test's own DataFrame names it


def _events(folder: str) -> str:
    return "".join(path.read_text() for path in Path(folder).rglob("*") if path.is_file())


def test_what_spark_itself_meets_with_is_told_as_it_is(spark: SparkSession, sandbox: Sandbox) -> None:
    def broken(_: Iterator[Row]) -> Iterator[Row]:
        yield from ()
        raise LookupError("of the user's own function")

    with pytest.raises(PythonException, match="LookupError: of the user's own function"):
        orders(spark, 10, 1).rdd.mapPartitions(broken).foreachPartition(writing("own", at(sandbox)))


def test_settings_that_travel_leave_out_what_is_not_needed(sandbox: Sandbox) -> None:
    chosen = at(
        sandbox, profile_token="pt-RECOGNISABLE", webhook_secret="whs-RECOGNISABLE", public_api_token="pa-RECOGNISABLE"
    )
    write = writing("travel", chosen)
    assert b"-RECOGNISABLE" not in pickle.dumps(write).replace(KEY.encode(), b"")
    assert pickle.loads(pickle.dumps(write)).settings.key_of("") == KEY
    assert KEY not in repr(write)


def test_all_partitions_keep_to_one_rate(spark: SparkSession, sandbox: Sandbox, redis_server: str) -> None:
    rate = 8
    report = Report(spark)
    chosen = at(sandbox, rate_limit=redis_server, requests_per_second=rate)
    orders(spark, 800, 8).foreachPartition(writing("rate", chosen, report=report))
    times = sorted(datetime.fromisoformat(row["receivedAt"]) for row in rows_with_times(sandbox))
    assert len(arrived(sandbox)) == 800
    with redis_client.Redis.from_url(redis_server) as client:
        asked = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
    assert asked["calls"] >= report.counts.requests
    assert report.counts.requests > 3 * rate
    # Two workers that each kept to the rate would need half of this.
    assert (times[-1] - times[0]).total_seconds() > 0.75 * (report.counts.requests / rate - 1)


def rows_with_times(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [{"receivedAt": each["receivedAt"]} for each in arrived(sandbox)]


def made(count: int, order: Callable[[int], int] = lambda n: n) -> list[Row]:
    """Rows as a partition has them, without a Spark."""
    return [Row(order=order(n), customer=f"u{n % 7}", amount=1.5, note="x" * 400) for n in range(count)]


def lost(found: list[Row], after: int) -> Iterator[Row]:
    yield from found[:after]
    raise OSError("the machine is lost")


def test_two_attempts_at_once_do_not_break_each_other(sandbox: Sandbox, tmp_path: Path) -> None:
    found = [*made(3000), Row(order=1, customer=None, amount=1.0, note="")]
    write = writing("both", at(sandbox), checkpoints=tmp_path / "c", rejected=tmp_path / "r")
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            write(iter(found))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    both = [threading.Thread(target=attempt) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(WAIT)
    assert errors == []
    by_user: dict[str, list[int]] = defaultdict(list)
    for message in arrived(sandbox):
        by_user[message["userId"]].append(message["properties"]["order_id"])
    assert sum(map(len, by_user.values())) == 3000
    assert all(each == sorted(each) for each in by_user.values())
    assert len((tmp_path / "r" / "part-00000.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["part-00000.json"]
    write(iter(found))


def test_an_attempt_that_ends_second_leaves_the_rejected_rows_of_the_first(sandbox: Sandbox, tmp_path: Path) -> None:
    bad = [Row(order=n, customer=None, amount=1.0, note="") for n in (-1, -2)]
    found = [bad[0], *made(3000), bad[1]]
    write = writing("second", at(sandbox), checkpoints=tmp_path / "c", rejected=tmp_path / "r")

    def overtaken() -> Iterator[Row]:
        yield from found[:2000]
        waited_for((tmp_path / "c" / "part-00000.json").exists, bool)
        write(iter(found))
        yield from found[2000:]

    write(overtaken())
    assert sorted(each["properties"]["order_id"] for each in arrived(sandbox)) == list(range(3000))
    (path,) = (tmp_path / "r").iterdir()
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [1, 3002]


def test_rows_in_another_order_are_not_taken_for_those_sent_before(sandbox: Sandbox, tmp_path: Path) -> None:
    write = writing("order", at(sandbox), checkpoints=tmp_path)
    with pytest.raises(OSError, match="the machine is lost"):
        write(lost(made(4000), 3500))
    turned = list(reversed(made(4000)))
    with pytest.raises(NotConfigured, match="has them in another order"):
        write(iter(turned))
    with pytest.raises(NotConfigured, match="does not begin with the rows"):
        write(iter(made(10)))
    write(iter(made(4000)))
    assert sorted(each["properties"]["order_id"] for each in arrived(sandbox)) == list(range(4000))


def test_rows_with_ids_of_their_own_are_sent_anew_in_another_order(sandbox: Sandbox, tmp_path: Path) -> None:
    write = writing("ids", at(sandbox), checkpoints=tmp_path, id="order")
    with pytest.raises(OSError, match="the machine is lost"):
        write(lost(made(4000), 3500))
    turned = list(reversed(made(4000)))
    with pytest.raises(NotConfigured, match="the next attempt begins anew"):
        write(iter(turned))
    write(iter(turned))
    assert sorted(each["properties"]["order_id"] for each in arrived(sandbox)) == list(range(4000))
    write(iter(made(4000)))


def test_a_finished_partition_is_sent_again_by_nobody_and_for_no_other_rows(sandbox: Sandbox, tmp_path: Path) -> None:
    write = writing("done", at(sandbox), checkpoints=tmp_path)
    write(iter(made(100)))
    assert len(rows(sandbox)) == 100
    write(iter(list(reversed(made(100)))))
    assert len(rows(sandbox)) == 100
    with pytest.raises(NotConfigured, match="was sent before, and its rows were others"):
        write(iter(made(101)))
    with pytest.raises(NotConfigured, match="it began with another mapping"):
        writing("done", at(sandbox), checkpoints=tmp_path, map={"userId": "customer"})(iter(made(100)))
    with pytest.raises(NotConfigured, match="it is of an import with another name"):
        writing("other", at(sandbox), checkpoints=tmp_path)(iter(made(100)))
    (tmp_path / "part-00000.json").write_text("{}")
    with pytest.raises(NotConfigured, match="is not a checkpoint"):
        write(iter(made(100)))


def test_the_same_rows_under_another_name_are_other_messages(sandbox: Sandbox) -> None:
    for name in ("one/orders", "two/orders"):
        writing(name, at(sandbox))(iter(made(5)))
        writing(name, at(sandbox), id=["order", "customer"])(iter(made(5)))
    assert len(arrived(sandbox)) == 20


def test_a_dry_run_sends_and_keeps_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    for write in (
        writing("dry", at(sandbox), dry_run=True, checkpoints=tmp_path),
        writing("dry", at(sandbox, dry_run="true"), checkpoints=tmp_path),
        writing("dry", Settings.from_env(environ={}), dry_run=True),
    ):
        write(iter(made(5)))
    assert rows(sandbox) == []
    assert list(tmp_path.iterdir()) == []


def test_a_preview_shows_the_first_rows_as_messages() -> None:
    write = writing("preview", None, map={"userId": "customer", "properties.total": "amount"}, id="order")
    first = write.preview(made(9), 1)
    assert first[0].pop("messageId").startswith("spark-")
    assert first == [
        {"type": "track", "event": "Order Completed", "userId": "u0", "properties": {"total": 1.5}},
    ]
    with pytest.raises(InvalidMessage, match="Column 'amount' is NaN"):
        write.preview([Row(order=1, customer="u", amount=float("nan"))])


SCHEMA = StructType(
    [StructField("order", StringType()), StructField("customer", StringType()), StructField("at", TimestampType())]
)
TWICE = StructType([StructField("userId", StringType()), StructField("userId", StringType())])
OWN = StructType([StructField("messageId", StringType()), StructField("extra", MapType(StringType(), StringType()))])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": " "}, "The import has no name"),
        ({"map": {"userid": "customer"}}, "did you mean 'userId'"),
        ({"map": {"userId": "custmer"}, "schema": SCHEMA}, "did you mean 'customer'"),
        ({"id": "nr", "schema": SCHEMA}, "There is no column 'nr'; the columns are order"),
        ({"schema": TWICE}, "Two columns are named 'userId'"),
        ({"id": "messageId", "schema": OWN}, "The rows have messageIds"),
        ({"checkpoints": "s3://bucket/folder"}, "is an address (s3://), not a folder"),
        ({"rejected": "hdfs://cluster/folder"}, "is an address (hdfs://), not a folder"),
        ({"settings": settings(read_only="true")}, "SEGMENT_READ_ONLY is on"),
        (
            {"settings": Settings.from_env(environ={})},
            "No write key is configured; set it in the executors' environment",
        ),
        ({"settings": settings(), "env_file": ".env"}, "settings= and env_file= exclude each other"),
        ({"settings": settings(), "source": "web"}, "source is not a configured one"),
    ],
)
def test_wrong_arguments_are_told_on_the_driver(values: dict[str, Any], says: str) -> None:
    with pytest.raises(NotConfigured) as error:
        write_segment(**{"name": "wrong", **values})
    assert says in str(error.value)


def test_rows_of_no_dataframe_are_told(sandbox: Sandbox) -> None:
    with pytest.raises(NotConfigured, match="The rows are of the type dict"):
        writing("dicts", at(sandbox))(iter([{"customer": "u1"}]))
    with pytest.raises(NotConfigured, match="There is no column 'customer'"):
        writing("lacking", at(sandbox))(iter([Row(order=1, amount=1.0, note="")]))


def test_an_unusable_folder_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for values in ({"checkpoints": tmp_path / "file"}, {"rejected": tmp_path / "file"}):
        with pytest.raises(NotConfigured, match="name a folder that every executor can read and write"):
            writing("folder", at(sandbox), **values)(iter(made(3)))
