"""Which endpoint a request is for."""

import pytest

from penstock_gateway.domain import BadRequest
from penstock_gateway.routing import endpoint_name, match_path, name_of_host, origin_form


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"iris.default.localhost", b"iris.default"),
        (b"IRIS.Default.LocalHost:8080", b"iris.default"),
        (b"iris.default.localhost.", b"iris.default"),
        (b"default.localhost", None),
        (b"a.iris.default.localhost", None),
        (b"localhost", None),
        (b"localhost:8080", None),
        (b"127.0.0.1:8080", None),
        (b"[::1]:8080", None),
        (b"iris.default.example.com", None),
        (b"iris.defaultlocalhost", None),
    ],
)
def test_a_host_of_two_labels_below_the_domain_names_an_endpoint(host: bytes, name: bytes | None) -> None:
    assert name_of_host(host, b"localhost") == name


def test_the_domain_may_have_several_labels() -> None:
    assert name_of_host(b"iris.default.models.example.com", b"models.example.com") == b"iris.default"


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b":80",
        b"a b",
        b"a,b",
        b"a/b",
        b"a@b",
        b"user:pw@a",
        b"a:b",
        b"a:",
        b"a:99999",
        b"a:123456",
        b"a..localhost",
        b".localhost",
        b"[::1",
        b"::1",
        b"[gg::1]",
        b"a\x80",
        b"a?b",
        b"a#b",
        b"-a.b.localhost:80:80",
        b"a" * 300,
    ],
)
def test_what_is_no_host_name_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequest):
        name_of_host(host, b"localhost")


@pytest.mark.parametrize(
    ("target", "name", "rest"),
    [
        (b"/e/default/iris/predict", b"iris.default", b"/predict"),
        (b"/e/default/iris/predict?x=/e/a/b", b"iris.default", b"/predict?x=/e/a/b"),
        (b"/e/default/iris", b"iris.default", b"/"),
        (b"/e/default/iris/", b"iris.default", b"/"),
        (b"/e/default/iris?x=1", b"iris.default", b"/?x=1"),
        (b"/e/default/iris//a//b", b"iris.default", b"//a//b"),
        (b"/e/default/iris/%2e%2e/x", b"iris.default", b"/%2e%2e/x"),
    ],
)
def test_the_path_prefix_is_taken_away_and_the_query_kept(target: bytes, name: bytes, rest: bytes) -> None:
    match = match_path(target)
    assert match is not None
    assert (match.name, match.target, match.prefix) == (name, rest, b"/e/default/iris")


@pytest.mark.parametrize("target", [b"/", b"/e", b"/e/default", b"/x/default/iris/", b"//e/default/iris", b"/E/a/b/c"])
def test_other_paths_name_no_endpoint(target: bytes) -> None:
    assert match_path(target) is None


def test_an_endpoint_is_found_under_one_name_by_host_and_by_path() -> None:
    match = match_path(b"/e/default/iris/x")
    assert match is not None
    assert match.name == name_of_host(b"iris.default.localhost", b"localhost") == endpoint_name("iris", "default")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a?b", b"/a?b"),
        (b"http://h.example:80/a?b", b"/a?b"),
        (b"HTTP://H.example:80", b"/"),
        (b"http://h.example:80?b", b"/?b"),
    ],
)
def test_the_absolute_form_is_taken_when_it_names_the_same_host(target: bytes, path: bytes) -> None:
    assert origin_form(target, b"h.example:80") == path


@pytest.mark.parametrize(
    "target",
    [
        b"http://other/a",
        b"http://h@other/a",
        b"http://other@h/a",
        b"http:///a",
        b"http://h:80/a",
        b"http://h\\other/a",
        b"ftp://h/a",
        b"h:443",
        b"*",
        b"a",
        b"/a#b",
        b"",
    ],
)
def test_every_other_form_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest):
        origin_form(target, b"h")
