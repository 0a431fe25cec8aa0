"""Settings: environment over file over defaults; what is unknown or wrong is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from edgestore.config import Config, host_and_port, parse_config
from edgestore.errors import ConfigError


def test_environment_over_file_over_defaults() -> None:
    tables = {"disk": {"reserve_bytes": 200_000_000, "segment_dead_ratio": 1}, "s3": {"region": "eu-central-1"}}
    config = parse_config(tables, {"EDGESTORE_DISK_RESERVE_BYTES": "300000000", "EDGESTORE_S3_DOMAIN": "example.org"})
    assert config.disk.reserve_bytes == 300_000_000
    assert config.disk.segment_dead_ratio == 1.0
    assert config.disk.segment_bytes == Config().disk.segment_bytes
    assert (config.s3.region, config.s3.domain) == ("eu-central-1", "example.org")
    assert parse_config({}, {}) == Config()


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"dsik": {}}, "did you mean 'disk'"),
        ({"disk": {"segment_byte": 1}}, "did you mean 'segment_bytes'"),
        ({"disk": {"segment_bytes": "many"}}, "a whole number"),
        ({"disk": {"segment_bytes": True}}, "a whole number"),
        ({"disk": {"segment_bytes": -1}}, "must be from 16777216 to"),
        ({"s3": {"region": 5}}, "a text"),
        ({"disk": 5}, "must be a table"),
        ({"disk": {"reserve_bytes": 1_000_000}}, "could not even take deletes"),
        ({"disk": {"journal_file_bytes": 256 << 20}}, "must be at least 553648128"),
        ({"http": {"listen": "9000"}}, "HOST:PORT"),
        ({"http": {"key": "key.pem"}}, "needs http.certificate"),
        ({"consensus": {"entry_bytes_max": 32 << 20}}, "a quarter of disk.journal_file_bytes"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tables: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_config(tables, {})


@pytest.mark.parametrize("variable", ["EDGESTORE_DISC_RESERVE_BYTES", "EDGESTORE_REGION", "EDGESTORE_ACCESSKEY"])
def test_an_unknown_variable_is_refused_whatever_its_table(variable: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'EDGESTORE_"):
        parse_config({}, {variable: "1"})


def test_what_is_no_setting_is_let_by() -> None:
    environment = {"EDGESTORE_ACCESS_KEY": "a", "EDGESTORE_SECRET_KEY": "b", "EDGESTORE_KERNEL": "avx2"}
    assert parse_config({}, environment | {"EDGESTORE_SEED": "7", "PATH": "/bin"}) == Config()


def test_a_wrong_value_in_the_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"disk\.segment_bytes"):
        parse_config({}, {"EDGESTORE_DISK_SEGMENT_BYTES": "large"})


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "[]", "b\u00fccher..de", "a\0b"])
def test_a_host_that_the_system_cannot_be_asked_for_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        host_and_port(f"{host}:9100")


@pytest.mark.parametrize("host", ["a.b", "a.b.", "10.0.0.1", "b\u00fccher.de", "a" * 63, "node_1"])
def test_a_host_may_be_a_name_or_an_address(host: str) -> None:
    assert host_and_port(f"{host}:9100") == (host, 9100)
    assert host_and_port("[fe80::1%eth0]:9100") == ("fe80::1%eth0", 9100)
