"""The manifests as `kubectl kustomize` renders them, held to what an operator relies on."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from overlayd.cli.run import read_first_config

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
ALL = ("base", "overlays/etcd-tls", "overlays/single-node", "etcd-trial")
WITH_DAEMON = ALL[:3]

Object = dict[str, Any]


@functools.cache
def render(name: str) -> tuple[Object, ...]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl 1.21 or newer: to render the manifests")
    done = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # it warns of what is deprecated
    return tuple(yaml.safe_load_all(done.stdout))


def find(name: str, kind: str, beginning: str = "") -> Object:
    [found] = [o for o in render(name) if o["kind"] == kind and o["metadata"]["name"].startswith(beginning)]
    return found


def pod_of(name: str, kind: str = "DaemonSet") -> Object:
    spec: Object = find(name, kind)["spec"]["template"]["spec"]
    return spec


def settings_of(name: str) -> dict[str, str]:
    settings: dict[str, str] = find(name, "ConfigMap", "overlayd-settings")["data"]
    return settings


@pytest.mark.parametrize("name", ALL)
def test_everything_lives_in_the_namespace(name: str) -> None:
    for one in render(name):
        if one["kind"] == "Namespace":
            assert one["metadata"]["name"] == "overlayd"
            assert one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
        else:
            assert one["metadata"]["namespace"] == "overlayd"


@pytest.mark.parametrize("name", ALL)
def test_selectors_fit_their_pods_and_nobody_elses(name: str) -> None:
    chosen = []
    for one in render(name):
        if "template" in one.get("spec", {}):
            wanted = one["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
            chosen.append(tuple(wanted.items()))
    assert chosen
    assert len(set(chosen)) == len(chosen)


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_the_daemon_runs_on_every_node_before_anything_else_and_rolls_one_at_a_time(name: str) -> None:
    pod = pod_of(name)
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "Default"
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert find(name, "DaemonSet")["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1},
    }


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_the_daemon_has_one_capability_and_nothing_to_write_to_but_its_volumes(name: str) -> None:
    pod = pod_of(name)
    [container] = pod["containers"]
    assert pod["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert find(name, "ServiceAccount", pod["serviceAccountName"])["automountServiceAccountToken"] is False
    assert container["resources"]["limits"].keys() == {"memory"}  # a CPU limit would throttle packets


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_the_state_of_the_node_is_on_the_node(name: str) -> None:
    pod = pod_of(name)
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    on_host = {
        mounts[name]: volume["hostPath"]["path"] for name, volume in volumes.items() if "hostPath" in volume
    }
    assert all(inside == outside for inside, outside in on_host.items())
    assert on_host.keys() == {
        *("/run/overlayd", "/run/flannel", "/var/lib/overlayd", "/etc/machine-id", "/run/xtables.lock"),
        *("/etc/cni/net.d", "/opt/cni/bin", "/dev/net/tun"),
    }
    read_only = {mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")}
    assert {"/etc/machine-id", "/opt/cni/bin", "/etc/overlayd"} <= read_only


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_probes_ask_where_the_daemon_listens(name: str) -> None:
    [container] = pod_of(name)["containers"]
    host, _, port = settings_of(name)["OVERLAYD_LISTEN"].rpartition(":")
    paths = {}
    for probe in ("livenessProbe", "readinessProbe"):
        ask = container[probe]["httpGet"]
        assert (ask["host"], str(ask["port"])) == (host, port)
        paths[probe] = ask["path"]
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_each_setting_is_an_option_of_the_daemon_and_is_accepted(name: str, tmp_path: Path) -> None:
    from overlayd.cli import build_parser

    arguments = []
    for variable, value in settings_of(name).items():
        assert variable.startswith("OVERLAYD_")
        flag = "--" + variable.removeprefix("OVERLAYD_").lower().replace("_", "-")
        if flag != "--network-config":  # stands at that path in the container alone
            arguments += [flag, value]
    build_parser().parse_args(["run", *arguments])


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_the_config_of_the_cluster_is_sound_and_where_the_daemon_looks(name: str, tmp_path: Path) -> None:
    [container] = pod_of(name)["containers"]
    config = find(name, "ConfigMap", "overlayd-network")
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "network"]
    [volume] = [volume for volume in pod_of(name)["volumes"] if volume["name"] == "network"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    [file] = config["data"]
    assert settings_of(name)["OVERLAYD_NETWORK_CONFIG"] == f"{mount['mountPath']}/{file}"
    (tmp_path / file).write_text(config["data"][file])
    read_first_config(str(tmp_path / file))


def test_a_changed_config_map_rolls_the_nodes() -> None:
    """Its name carries a hash of what is in it."""
    names = {
        settings["metadata"]["name"]
        for name in WITH_DAEMON
        for settings in [find(name, "ConfigMap", "overlayd-s")]
    }
    assert len(names) == len(WITH_DAEMON)
    for name in WITH_DAEMON:
        [container] = pod_of(name)["containers"]
        assert container["envFrom"] == [
            {"configMapRef": {"name": find(name, "ConfigMap", "overlayd-s")["metadata"]["name"]}}
        ]


def test_with_tls_every_file_named_is_mounted_from_the_secret() -> None:
    settings = settings_of("overlays/etcd-tls")
    pod = pod_of("overlays/etcd-tls")
    [mount] = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "etcd-tls"]
    [volume] = [v for v in pod["volumes"] if v["name"] == "etcd-tls"]
    assert volume["secret"]["defaultMode"] == 0o400
    assert mount["readOnly"] is True
    assert all(url.startswith("https://") for url in settings["OVERLAYD_ETCD_ENDPOINTS"].split(","))
    files = {settings[f"OVERLAYD_ETCD_{kind}"] for kind in ("CAFILE", "CERTFILE", "KEYFILE")}
    assert {str(Path(file).parent) for file in files} == {mount["mountPath"]}
    made = set(re.findall(r"--from-file=(\S+)", (MANIFESTS / "overlays/etcd-tls/kustomization.yaml").read_text()))
    assert {Path(file).name for file in files} == made


def test_the_trial_etcd_is_where_the_single_node_looks_for_it() -> None:
    [etcd] = pod_of("overlays/single-node", "StatefulSet")["containers"]
    [listens] = [a.partition("=")[2] for a in etcd["command"] if a.startswith("--listen-client-urls=")]
    assert settings_of("overlays/single-node")["OVERLAYD_ETCD_ENDPOINTS"] in listens.split(",")
    assert etcd["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def images(name: str) -> Iterator[str]:
    for one in render(name):
        if "template" in one.get("spec", {}):
            yield from (container["image"] for container in one["spec"]["template"]["spec"]["containers"])


@pytest.mark.parametrize("name", ALL)
def test_the_image_is_of_this_version(name: str) -> None:
    from overlayd import __version__

    for image in images(name):
        assert image in (f"overlayd:{__version__}", "etcd")
