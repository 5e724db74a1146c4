"""What docker/ says, read by the tools that know its formats. No engine is needed, and none is started."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = PROJECT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
UIS = {"mlflow", "dashboard"}


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """``${NAME:-default}`` and ``${NAME:?message}`` as Compose replaces them."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == ":?":
            raise KeyError(name)
        return rest or ""

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text).replace("$$", "$")


def parsed_by_the_specification(text: str) -> None:
    plain = {key: value for key, value in yaml.safe_load(text).items() if not key.startswith("x-")}
    PyCompose.from_yaml(yaml.safe_dump(plain)).validate()  # with its merges done: it does none below x-


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    text = interpolated((DOCKER / "compose.yaml").read_text(encoding="utf-8"), {"POSTGRES_PASSWORD": "secret"})
    parsed_by_the_specification(text)
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def test_the_dockerfile_passes_the_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run(
        [linter, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "\nUSER 1000\n" in last
    assert last.index("USER 1000") < last.index("ENTRYPOINT") > last.rindex("RUN")
    assert 'ENTRYPOINT ["python", "-m", "ftexp"]' in last
    assert not re.search(r"password|token|secret|https?://", DOCKERFILE, re.IGNORECASE)


def test_a_change_of_the_code_comes_after_the_packages() -> None:
    install, code = DOCKERFILE.index("pip install -c constraints.txt -r"), DOCKERFILE.index("COPY ftexp")
    assert install < code
    assert "COPY ." not in DOCKERFILE


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (PROJECT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_the_requirements_are_those_of_the_project() -> None:
    printed = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "services"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = {re.split(r"[\[<>=]", line)[0] for line in printed.stdout.split()}
    assert {"torch", "hydra-core", "mlflow", "psycopg", "optuna-dashboard"} <= names
    assert not {"pytest", "ruff", "ray"} & names


def test_there_is_no_password_to_begin_with() -> None:
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        interpolated((DOCKER / "compose.yaml").read_text(encoding="utf-8"), {})


def test_a_password_is_in_no_url_and_no_command(services: dict[str, dict[str, Any]]) -> None:
    holding = {
        (name, variable)
        for name, service in services.items()
        for variable, value in service.pop("environment", {}).items()
        if "secret" in value
    }
    clients = {("mlflow", "PGPASSWORD"), ("worker", "PGPASSWORD"), ("studies", "PGPASSWORD")}
    others = {("dashboard", "PGPASSWORD"), ("backup", "PGPASSWORD"), ("postgres", "POSTGRES_PASSWORD")}
    assert holding == clients | others
    assert "secret" not in str(services)


def test_the_database_is_ready_only_when_others_can_reach_it(services: dict[str, dict[str, Any]]) -> None:
    assert "--host=127.0.0.1" in services["postgres"]["healthcheck"]["test"]


def test_the_specification_refuses_what_it_does_not_know() -> None:
    with pytest.raises(Exception, match="helthcheck"):
        parsed_by_the_specification("services: {a: {image: b, helthcheck: {test: [NONE]}}}")


def test_only_the_uis_have_ports_and_those_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == UIS
    for name in UIS:
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])


def test_what_stays_up_says_how_it_is(services: dict[str, dict[str, Any]]) -> None:
    staying = {name for name, service in services.items() if service.get("restart") == "unless-stopped"}
    assert staying == {"postgres", *UIS}
    assert all("healthcheck" in services[name] for name in staying)


def test_what_has_to_outlive_a_container_is_in_named_volumes(services: dict[str, dict[str, Any]]) -> None:
    named = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["volumes"]
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert set(named) == {"database", "artifacts", "runs", "weights"} <= used


def test_trainers_and_workers_wait_for_their_own_profile_and_for_the_services(
    services: dict[str, dict[str, Any]],
) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"trainer": ["train"], "worker": ["sweep"], "backup": ["backup"]}
    for name in ("trainer", "worker"):
        assert services[name]["depends_on"]["mlflow"] == {"condition": "service_healthy"}
        assert services[name]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "--multirun" in services["worker"]["command"]
    assert "hydra.sweeper.storage=postgresql+psycopg://" in services["worker"]["command"]


def test_the_readme_names_services_and_profiles_that_exist(services: dict[str, dict[str, Any]]) -> None:
    readme = (DOCKER / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"docker compose run --rm (?:--entrypoint \w+ )?(\w+)", readme):
        assert name in services
    assert re.findall(r"--profile (\w+)", readme) == ["sweep"]
