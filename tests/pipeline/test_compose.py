"""docker-compose.yml without containers: each service's own command and healthcheck, as local processes."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from api_stub.pipeline_client import PipelineClient
from api_stub.stack.binaries import find_postgres, find_redis, within_reach
from api_stub.stack.children import ChildSpec, exit_status, kill, last_lines, spawn
from api_stub.stack.kept import kept_port
from api_stub.stack.probes import redis_answers
from api_stub.stack.unprivileged import postgres_user
from memory.heartbeat import STALE_AFTER_S
from memory.models import MemoryState
from memory.settings import Settings, read_settings
from memory.stream import IngestStream
from tests.waiting import wait_until

_ROOT = Path(__file__).parents[2]
_PASSWORDS = {"POSTGRES_PASSWORD": "pg0f2b6c", "REDIS_PASSWORD": "rd91ad07"}
_SERVERS = ("postgres", "redis")
_PROCESSES = ("embed", "indexer", "beat")
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?P<kind>:[-?])(?P<word>[^}]*)\})")
_START_TIMEOUT_S = 60.0


def _resolved(node: Any, values: Mapping[str, str]) -> Any:
    """Fill in `${NAME:-default}` and `${NAME:?reason}`, and `$` for `$$`, as Compose does.

    Raises KeyError with the name and the reason where a value is missing.
    """
    if isinstance(node, dict):
        return {key: _resolved(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolved(value, values) for value in node]
    return _VARIABLE.sub(lambda found: _value(found, values), node) if isinstance(node, str) else node


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    name, kind, word = found["name"], found["kind"], found["word"]
    if name is None:
        return "$"
    if not values.get(name) and kind == ":?":
        raise KeyError(f"{name}: {word}")
    return values.get(name) or word


_RAW = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
_FILE = _resolved(_RAW, _PASSWORDS)
_SERVICES: dict[str, dict[str, Any]] = _FILE["services"]
_OURS = [name for name, service in _SERVICES.items() if "build" in service]

every_service = pytest.mark.parametrize("name", _SERVICES)
every_process = pytest.mark.parametrize("name", _PROCESSES)


class _Deployment:
    """The services that run without a profile; what the file gives a container lies in `home` instead."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: str(kept_port(home / f"{name}.port")) for name in _SERVERS}
        self._postgres = within_reach(find_postgres(), user=postgres_user(), directory=home).directory
        self._programs = home / "bin"
        self._link_programs()

    def url(self, variable: str) -> str:
        """Where a producer outside connects."""
        return self._environment("embed")[variable]

    def start(self, name: str) -> None:
        """Run the command of the file, in the environment of the file and no other."""
        if name == "postgres":
            self._make_database_files()
        directory = self.home / name
        directory.mkdir(exist_ok=True)
        self.processes[name] = spawn(
            ChildSpec(
                name=name,
                argv=("env", "-i", *_assignments(self._environment(name)), *self._command(name)),
                cwd=directory,
                run_as=postgres_user() if name == "postgres" else None,
                log_path=self._log_path(name),
            )
        )

    def is_healthy(self, name: str) -> bool:
        """Run the healthcheck of the file. Quotes the log of a service that has ended."""
        process = self.processes[name]
        assert exit_status(process) is None, f"{name} ended: {last_lines(self._log_path(name))}"
        return self.check(name)

    def check(self, name: str) -> bool:
        """Run the healthcheck of the file, whether the service runs or not."""
        environment, healthcheck = self._environment(name), _SERVICES[name]["healthcheck"]
        kind, *argv = healthcheck["test"]
        assert kind == "CMD"
        if name == "redis":
            if shutil.which(argv[0], path=environment["PATH"]) is None:
                # The wheel has the server alone; this asks just what the client program would ask.
                return redis_answers(port=int(self._ports[name]), password=environment["REDISCLI_AUTH"])
            argv[1:1] = ["-p", self._ports[name]]
        with contextlib.suppress(subprocess.TimeoutExpired):
            timeout_s = _seconds(healthcheck["timeout"])
            ran = subprocess.run(
                ["env", "-i", *_assignments(environment), *argv],
                cwd=self.home,
                timeout=timeout_s,
                capture_output=True,
                check=False,
            )
            return ran.returncode == 0
        return False

    def wait_until_healthy(self, *names: str) -> None:
        for name in names:
            wait_until(
                functools.partial(self.is_healthy, name),
                timeout_s=_START_TIMEOUT_S,
                why=f"{name} is healthy by its own healthcheck",
            )

    def end(self, name: str) -> int | None:
        """Ask as the container engine does; return the exit code, None when it outlived its grace period."""
        process, service = self.processes[name], _SERVICES[name]
        process.send_signal(signal.Signals[service.get("stop_signal", "SIGTERM")])
        try:
            return process.wait(_seconds(service["stop_grace_period"]))
        except subprocess.TimeoutExpired:
            return None

    def kill_all(self) -> None:
        for process in reversed(self.processes.values()):
            kill(process)

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[Path]:
        """Stop the process from giving signs of life; yields the file of the last one."""
        [sign] = (self.home / name / "heartbeats").iterdir()
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield sign
        finally:
            process.send_signal(signal.SIGCONT)

    def _environment(self, name: str) -> dict[str, str]:
        places = {
            "/var/lib/memory/models": str(self.home / "models"),  # the volume that they share
            "/var/lib/memory": str(self.home / name),
            "@postgres:5432/": f"@127.0.0.1:{self._ports['postgres']}/",
            "@redis:6379/": f"@127.0.0.1:{self._ports['redis']}/",
        }
        environment = {key: _moved(value, places) for key, value in _SERVICES[name]["environment"].items()}
        search = (self._programs, self._postgres, Path(sys.executable).parent, os.defpath)
        environment |= {"PATH": os.pathsep.join(map(str, search)), "HOME": str(self.home / name)}
        if name == "postgres":
            environment |= {"PGDATA": str(self.home / name / "data"), "PGPORT": self._ports[name]}
        return environment

    def _command(self, name: str) -> list[str]:
        moved = {
            "redis": ["--port", self._ports["redis"], "--bind", "127.0.0.1"],
            "postgres": ["--unix_socket_directories="],
        }
        return [*_SERVICES[name]["command"], *moved.get(name, [])]

    def _log_path(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def _link_programs(self) -> None:
        self._programs.mkdir()
        (self._programs / "valkey-server").symlink_to(find_redis())
        if client := shutil.which("valkey-cli") or shutil.which("redis-cli"):
            (self._programs / "valkey-cli").symlink_to(client)

    def _make_database_files(self) -> None:
        """Do what the image's entry point does with an empty volume."""
        environment = self._environment("postgres")
        directory = self.home / "postgres"
        password_file = directory / "password"
        directory.mkdir()
        password_file.write_text(environment["POSTGRES_PASSWORD"])
        user = postgres_user()
        if user is not None:
            for path in (directory, password_file):
                os.chown(path, user.uid, user.gid)
        arguments = shlex.split(environment["POSTGRES_INITDB_ARGS"])
        subprocess.run(
            ["initdb", "--username", environment["POSTGRES_USER"], f"--pwfile={password_file}", *arguments],
            check=True,
            cwd=directory,
            env=environment,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            stdout=subprocess.DEVNULL,
        )

    def make_database(self) -> None:
        environment = self._environment("postgres")
        url = self.url("MEMORY_DB_URL").rpartition("/")[0] + "/postgres"
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as session:
            session.execute(f"CREATE DATABASE {environment['POSTGRES_DB']}".encode())


def _assignments(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _moved(text: str, places: Mapping[str, str]) -> str:
    for there, here in places.items():
        text = text.replace(there, here)
    return text


def _seconds(duration: str) -> float:
    assert duration.endswith("s"), duration
    return float(duration.removesuffix("s"))


@pytest.fixture(scope="module")
def deployment() -> Iterator[_Deployment]:
    home = Path(tempfile.mkdtemp(prefix="memory-test-"))
    home.chmod(0o711)
    running = _Deployment(home)
    try:
        for name in _SERVERS:
            running.start(name)
        running.wait_until_healthy(*_SERVERS)
        running.make_database()
        for name in _PROCESSES:
            running.start(name)
        running.wait_until_healthy(*_PROCESSES)
        yield running
    finally:
        running.kill_all()
        shutil.rmtree(home)


def test_a_service_is_one_that_is_run_here_or_a_variant_of_it() -> None:
    without_profile = [name for name, service in _SERVICES.items() if "profiles" not in service]
    assert sorted(without_profile) == sorted((*_SERVERS, *_PROCESSES))


@pytest.mark.parametrize("missing", _PASSWORDS)
def test_a_missing_password_is_refused_by_its_name(missing: str) -> None:
    with pytest.raises(KeyError, match=f"{missing}: set it in .env"):
        _resolved(_RAW, {name: value for name, value in _PASSWORDS.items() if name != missing})


@every_service
def test_no_port_is_published(name: str) -> None:
    assert not _SERVICES[name].keys() & {"ports", "network_mode"}
    assert _FILE["networks"]["everkept"]["internal"] is True


@every_service
def test_a_service_is_watched_restarted_and_given_time_to_end(name: str) -> None:
    service = _SERVICES[name]
    assert service["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert _seconds(service["stop_grace_period"]) >= 30


@every_service
def test_a_service_waits_for_the_health_of_what_it_needs(name: str) -> None:
    needs = _SERVICES[name].get("depends_on", {})
    assert {service["condition"] for service in needs.values()} <= {"service_healthy"}
    assert set(needs) <= set(_SERVERS)
    assert ("redis" in needs) is (name in _OURS)


@every_service
def test_a_service_may_do_nothing_that_it_need_not(name: str) -> None:
    service = _SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert name in _OURS or service["user"] not in {"root", "0"}


@every_service
def test_no_password_stands_on_a_command_line(name: str) -> None:
    words = " ".join([*_SERVICES[name]["command"], *_SERVICES[name]["healthcheck"]["test"]])
    assert [password for password in _PASSWORDS.values() if password in words] == []


@every_service
def test_an_image_is_pinned(name: str) -> None:
    tag = _SERVICES[name]["image"].partition(":")[2]
    assert re.match(r"\d", tag), "a tag without a version changes under us"
    version = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert name not in _OURS or tag.removesuffix("-cuda") == version


@pytest.mark.parametrize("name", _OURS)
def test_a_healthcheck_asks_about_the_process_that_the_command_runs(name: str) -> None:
    service = _SERVICES[name]
    assert service["healthcheck"]["test"] == ["CMD", *service["command"], "--health"]


@pytest.mark.parametrize("name", _OURS)
def test_a_variable_is_one_that_the_settings_know(name: str) -> None:
    known = {field.alias for field in Settings.model_fields.values()} | {"HF_HUB_OFFLINE"}
    assert _SERVICES[name]["environment"].keys() <= known


def test_no_worker_is_given_a_name_so_that_each_takes_its_containers() -> None:
    assert all("--name" not in _SERVICES[name]["command"] for name in _OURS)


def test_only_the_gpu_profile_asks_for_a_gpu() -> None:
    reserving = [name for name in _SERVICES if "reservations" in _SERVICES[name]["deploy"]["resources"]]
    using = [name for name in _OURS if _SERVICES[name]["environment"].get("USE_GPU")]
    with_cuda = [name for name in _OURS if _SERVICES[name]["build"]["args"]["TORCH_BACKEND"] != "cpu"]
    of_profile = [name for name in _SERVICES if _SERVICES[name].get("profiles") == ["gpu"]]
    assert reserving == using == with_cuda == of_profile == ["embed-gpu"]


def test_only_the_indexer_holds_the_volume_of_the_index() -> None:
    holders = [name for name in _SERVICES if str(_SERVICES[name].get("volumes")).count("index:")]
    assert holders == ["indexer"]
    places = _FILE["x-environment"]
    index, models = f"index:{places['FAISS_INDEX_PATH']}", f"models:{places['EMBEDDING_CACHE']}"
    assert _SERVICES["indexer"]["volumes"] == [index, models]
    assert _SERVICES["embed"]["volumes"] == [models]
    assert sorted(_FILE["volumes"]) == ["index", "models", "postgres", "redis"]


def test_the_image_holds_every_package_and_runs_as_nobody_important() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    dockerfile = (_ROOT / "Dockerfile").read_text()
    sent = (_ROOT / ".dockerignore").read_text().splitlines()
    copied = {f"COPY {package} ./{package}" for package in packages}
    assert copied <= set(dockerfile.splitlines())
    assert {f"!{name}" for name in (*packages, "pyproject.toml", "README.md", "LICENSE")} <= set(sent)
    assert set(re.findall(r"--extra (\w+)", dockerfile)) <= set(project["project"]["optional-dependencies"])
    assert re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE) == ["10001"]
    assert "/var/lib/memory:uid=10001,gid=10001,mode=0700" in _FILE["x-process"]["tmpfs"]


@pytest.mark.parametrize("name", [*_SERVERS, *_PROCESSES])
def test_a_service_is_healthy_by_its_own_healthcheck(deployment: _Deployment, name: str) -> None:
    assert deployment.is_healthy(name)


def test_a_memory_that_a_producer_enqueues_becomes_searchable(deployment: _Deployment) -> None:
    with PipelineClient(_settings(deployment)) as client:
        receipt = client.enqueue("The cat sleeps on the warm windowsill.")
        outcome = client.wait(receipt, timeout_s=30)
        assert outcome.state is MemoryState.SEARCHABLE
        [hit] = client.search("Where does the cat sleep?", min_seq=outcome.seq)
        assert hit.memory.uid == receipt.uid


def test_redis_keeps_what_it_accepted_and_throws_nothing_away(deployment: _Deployment) -> None:
    stream = IngestStream(_settings(deployment).redis_database_url("ingest"))
    with contextlib.closing(stream):
        assert stream.check_server() == []
    assert " ".join(_SERVICES["redis"]["command"]).count("--appendfsync everysec") == 1


def test_postgres_commits_to_the_disk_and_waits_for_no_stuck_client(deployment: _Deployment) -> None:
    wanted = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "password_encryption": "scram-sha-256",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "30s",
        "tcp_keepalives_idle": "30",
        "TimeZone": "UTC",
    }
    with contextlib.closing(psycopg.connect(deployment.url("MEMORY_DB_URL"))) as session:
        found = {name: session.execute(f"SHOW {name}".encode()).fetchone() for name in wanted}
    assert found == {name: (value,) for name, value in wanted.items()}


def test_a_server_refuses_a_wrong_password(deployment: _Deployment) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(deployment.url("MEMORY_DB_URL"), password="wrong", connect_timeout=5)
    port = int(deployment.url("REDIS_URL").rpartition(":")[2].partition("/")[0])
    assert redis_answers(port=port, password=_PASSWORDS["REDIS_PASSWORD"])
    assert not redis_answers(port=port, password="wrong")


@every_process
def test_a_process_whose_last_sign_of_life_is_old_is_sick_until_it_gives_another(
    deployment: _Deployment, name: str
) -> None:
    long_ago = time.time() - STALE_AFTER_S - 1
    with deployment.paused(name) as sign:
        os.utime(sign, (long_ago, long_ago))
        assert not deployment.is_healthy(name)
    deployment.wait_until_healthy(name)


@every_process
def test_a_process_that_never_gave_a_sign_of_life_is_sick(deployment: _Deployment, name: str) -> None:
    with deployment.paused(name) as sign:
        sign.unlink()
        assert not deployment.is_healthy(name)
    deployment.wait_until_healthy(name)


def test_every_service_ends_by_itself_within_its_grace_period_and_its_check_fails(
    deployment: _Deployment,
) -> None:
    """The last test of this file: nothing runs after it."""
    codes = {name: deployment.end(name) for name in (*_PROCESSES, *_SERVERS)}
    assert codes == dict.fromkeys((*_PROCESSES, *_SERVERS), 0)
    assert [name for name in _SERVERS if deployment.check(name)] == []


def _settings(deployment: _Deployment) -> Settings:
    return read_settings(
        home=deployment.home, db_url=deployment.url("MEMORY_DB_URL"), redis_url=deployment.url("REDIS_URL")
    )
