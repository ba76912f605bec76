"""One Spark for all tests of this folder, which are run by `make test-spark`: it needs Java 17, and half a gigabyte."""

import os
import shutil
import sys
from collections.abc import Iterator

import pytest
from support import absent

from segment_tools.environment import environment


@pytest.fixture(scope="session")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of what Spark's history, and so its UI, knows of its jobs."""
    return str(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="session")
def session(event_log: str) -> Iterator[object]:
    """A session whose tasks are tried three times, two at once."""
    if shutil.which("java") is None:
        absent("there is no java on the path")
    from pyspark.sql import SparkSession

    for name in set(os.environ) - set(environment()):
        del os.environ[name]
    os.environ["PYSPARK_PYTHON"] = sys.executable
    chosen = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # a short life
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.dir": f"file://{event_log}",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[2,3]").appName("segment-tools")
    for name, value in chosen.items():
        builder = builder.config(name, value)
    running = builder.getOrCreate()
    yield running
    running.stop()


@pytest.fixture
def spark(session: object) -> Iterator[object]:
    """The session, whose executors have no settings of Segment's but those that the test gives them."""
    executors = session.sparkContext.environment
    before = dict(executors)
    yield session
    executors.clear()
    executors.update(before)
