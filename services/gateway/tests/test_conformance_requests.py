"""Requests over raw sockets: what is refused, and that nothing of it reaches a replica."""

import pytest

from .plane import MakePlane
from .raw import AUTHORIZATION, HOST, KEY
from .replica import ScriptedReplica

FIELDS = HOST + AUTHORIZATION
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + FIELDS + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /x HTTP/1.1\r\n" + FIELDS + fields + b"\r\n" + body


def get(line: bytes = b"GET /x HTTP/1.1", fields: bytes = FIELDS) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
TWO = b"Content-Length: 3\r\nContent-Length: 3\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    # --- length and coding at odds
    "length then coding": (post(b"Content-Length: 3\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "coding then length": (post(CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n"), 400),
    "two equal lengths": (post(TWO, b"abc"), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    "a list of lengths": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "a signed length": (post(b"Content-Length: +3\r\n", b"abc"), 400),
    "a negative length": (post(b"Content-Length: -3\r\n", b"abc"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    "a length with a space in it": (post(b"Content-Length: 3 3\r\n", b"abc"), 400),
    "an empty length": (post(b"Content-Length:\r\n", b"abc"), 400),
    "a length beyond 64 bits": (post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    "a length of 5000 digits": (post(b"Content-Length: " + b"0" * 5000 + b"\r\n"), 400),
    "a length in other digits": (post("Content-Length: \u0663\r\n".encode(), b"abc"), 400),
    "coding twice": (post(CHUNKED + CHUNKED, b"0\r\n\r\n"), 400),
    "coding chunked, identity": (post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400),
    "coding identity": (post(b"Transfer-Encoding: identity\r\n", b""), 400),
    "coding xchunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    "coding in quotes": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 400),
    "coding after a vertical tab": (post(b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "coding gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "coding in HTTP/1.0": (
        b"POST /x HTTP/1.0\r\n" + FIELDS + CHUNKED + b"\r\n0\r\n\r\n",
        400,
    ),
    # --- line ends and white space
    "bare LF after the request line": (b"GET /x HTTP/1.1\n" + FIELDS + b"\r\n", 400),
    "bare LF after a field": (get(fields=FIELDS + b"X: a\nY: b\r\n"), 400),
    "bare LF everywhere": (get().replace(b"\r\n", b"\n"), 400),
    "bare LF as the empty line": (get()[:-2] + b"\n", 400),
    "bare CR in a value": (get(fields=FIELDS + b"X: a\rY: b\r\n"), 400),
    "bare CR in a name": (get(fields=FIELDS + b"X\rY: b\r\n"), 400),
    "CR CR LF": (get(fields=FIELDS + b"X: a\r\r\n"), 400),
    "a folded field": (get(fields=FIELDS + b"X: a\r\n b\r\n"), 400),
    "a field folded with a tab": (get(fields=FIELDS + b"X: a\r\n\tb\r\n"), 400),
    "a folded first field": (get(fields=b" " + FIELDS), 400),
    "a folded length": (post(b"Content-Length:\r\n 3\r\n", b"abc"), 400),
    "space before a colon": (get(fields=FIELDS + b"X : a\r\n"), 400),
    "tab before a colon": (get(fields=FIELDS + b"X\t: a\r\n"), 400),
    "space before the colon of a length": (post(b"Content-Length : 3\r\n", b"abc"), 400),
    "space before the colon of a coding": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "NUL in a value": (get(fields=FIELDS + b"X: a\0b\r\n"), 400),
    "a control character in a value": (get(fields=FIELDS + b"X: a\x01b\r\n"), 400),
    "DEL in a value": (get(fields=FIELDS + b"X: a\x7fb\r\n"), 400),
    "an empty name": (get(fields=FIELDS + b": a\r\n"), 400),
    "a field without a colon": (get(fields=FIELDS + b"X\r\n"), 400),
    "a name outside ASCII": (get(fields=FIELDS + b"X\xe9: a\r\n"), 400),
    "a name with a parenthesis": (get(fields=FIELDS + b"X(y): a\r\n"), 400),
    "a bare LF before the request": (b"\n" + get(), 400),
    "a bare CR before the request": (b"\r" + get(), 400),
    "empty lines before the request": (b"\r\n" * 6 + get(), 400),
    # --- the request line
    "two spaces before the target": (get(b"GET  /x HTTP/1.1"), 400),
    "two spaces after the target": (get(b"GET /x  HTTP/1.1"), 400),
    "space at the end": (get(b"GET /x HTTP/1.1 "), 400),
    "a tab between": (get(b"GET\t/x HTTP/1.1"), 400),
    "space before the method": (get(b" GET /x HTTP/1.1"), 400),
    "no version": (b"GET /x\r\n\r\n", 400),
    "HTTP/0.9": (get(b"GET /x HTTP/0.9"), 400),
    "HTTP/1.2": (get(b"GET /x HTTP/1.2"), 400),
    "HTTP/2.0": (get(b"GET /x HTTP/2.0"), 400),
    "HTTP/1.10": (get(b"GET /x HTTP/1.10"), 400),
    "version in lower case": (get(b"GET /x http/1.1"), 400),
    "RTSP": (get(b"DESCRIBE /x RTSP/1.0"), 400),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a method in lower case": (get(b"get /x HTTP/1.1"), 400),
    "an unknown method": (get(b"BREW /x HTTP/1.1"), 400),
    "TRACE": (get(b"TRACE /x HTTP/1.1"), 501),
    "PROPFIND": (get(b"PROPFIND /x HTTP/1.1"), 501),
    "a space in the target": (get(b"GET /a b HTTP/1.1"), 400),
    "a control character in the target": (get(b"GET /\x01 HTTP/1.1"), 400),
    "a byte outside ASCII in the target": (get(b"GET /\xe9 HTTP/1.1"), 400),
    "a fragment": (get(b"GET /x#y HTTP/1.1"), 400),
    "a target without a slash": (get(b"GET x HTTP/1.1"), 400),
    "an asterisk": (get(b"OPTIONS * HTTP/1.1"), 400),
    "CONNECT": (get(b"CONNECT iris.default.localhost:80 HTTP/1.1"), 501),
    "an authority as target": (get(b"GET iris.default.localhost:80 HTTP/1.1"), 400),
    "absolute form of another host": (get(b"GET http://other.default.localhost/x HTTP/1.1"), 400),
    "absolute form with a user": (get(b"GET http://iris.default.localhost@evil/x HTTP/1.1"), 400),
    "absolute form with another port": (get(b"GET http://iris.default.localhost:81/x HTTP/1.1"), 400),
    "absolute form of another scheme": (get(b"GET ftp://iris.default.localhost/x HTTP/1.1"), 400),
    # --- host
    "no host": (get(fields=AUTHORIZATION), 400),
    "two hosts": (get(fields=FIELDS + b"Host: other\r\n"), 400),
    "two equal hosts": (get(fields=FIELDS + HOST), 400),
    "an empty host": (get(fields=b"Host:\r\n" + AUTHORIZATION), 400),
    "a host with a path": (get(fields=b"Host: iris.default.localhost/x\r\n" + AUTHORIZATION), 400),
    "a host with a user": (get(fields=b"Host: a@iris.default.localhost\r\n" + AUTHORIZATION), 400),
    "a list of hosts": (get(fields=b"Host: a, iris.default.localhost\r\n" + AUTHORIZATION), 400),
    "a host with a space": (get(fields=b"Host: iris default localhost\r\n" + AUTHORIZATION), 400),
    "a port that is none": (get(fields=b"Host: iris.default.localhost:http\r\n" + AUTHORIZATION), 400),
    "a port too high": (get(fields=b"Host: iris.default.localhost:65536\r\n" + AUTHORIZATION), 400),
    # --- other
    "two authorizations": (get(fields=FIELDS + AUTHORIZATION), 400),
    "an unknown expectation": (post(b"Expect: 200-ok\r\nContent-Length: 3\r\n", b"abc"), 417),
    "too many headers": (get(fields=FIELDS + b"X: y\r\n" * 200), 431),
    "headers too long": (get(fields=FIELDS + b"X: " + b"y" * 40_000 + b"\r\n"), 431),
    "headers without an end": (b"GET /x HTTP/1.1\r\nX: " + b"y" * 40_000, 431),
    "a target too long": (get(b"GET /" + b"x" * 9000 + b" HTTP/1.1"), 414),
    # --- chunks
    "a chunk size with 0x": (post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with a sign": (post(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with a space": (post(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with an underscore": (post(CHUNKED, b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"), 400),
    "an empty chunk size": (post(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size beyond 64 bits": (post(CHUNKED, b"10000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size that ends in LF": (post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"), 400),
    "LF in a chunk extension": (post(CHUNKED, b"3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    "a chunk shorter than its size": (post(CHUNKED, b"3\r\nab\r\n0\r\n\r\n"), 400),
    "a chunk that ends in LF": (post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"), 400),
    "a folded trailer": (post(CHUNKED, b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    "space before the colon of a trailer": (post(CHUNKED, b"0\r\nX : a\r\n\r\n"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_invalid_or_ambiguous_request_is_refused_and_the_connection_closed(
    name: str, make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    request, status = REFUSED[name]
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(request + SMUGGLED)
        answer = await client.answer()
        assert answer.status == status
        assert answer.closes
        assert answer.one("Content-Type") == "application/problem+json"
        assert answer.json()["status"] == status
        assert await client.closed()
    assert replica.seen == []


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"headers without an end", "TLS on a plain port"}))
async def test_it_is_refused_alike_when_it_comes_byte_by_byte(
    name: str, make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    request, status = REFUSED[name]
    if len(request) > 2000:
        request = request[:100] + request[100:]
    plane = await make_plane(replica)
    async with plane.client() as client:
        step = max(1, len(request) // 300)
        for at in range(0, len(request), step):
            client.writer.write(request[at : at + step])
            await client.writer.drain()
        assert (await client.answer()).status == status
    assert replica.seen == []


ACCEPTED: dict[str, bytes] = {
    "the host in another case": get(fields=b"Host: IRIS.default.LOCALHOST\r\n" + AUTHORIZATION),
    "the host with a port": get(fields=b"Host: iris.default.localhost:8080\r\n" + AUTHORIZATION),
    "the host with a dot at the end": get(fields=b"Host: iris.default.localhost.\r\n" + AUTHORIZATION),
    "absolute form of the same host": get(b"GET http://iris.default.localhost/x HTTP/1.1"),
    "an empty line before the request": b"\r\n" + get(),
    "HTTP/1.0 without a host, by path": b"GET /e/default/iris/x HTTP/1.0\r\n" + AUTHORIZATION + b"\r\n",
    "HTTP/1.0 with a host": get(b"GET /x HTTP/1.0"),
    "by path": get(b"GET /e/default/iris/x HTTP/1.1", b"Host: 127.0.0.1:8080\r\n" + AUTHORIZATION),
    "names in any case": get(fields=FIELDS.upper().replace(KEY.upper().encode(), KEY.encode())),
    "no space after a colon": get(fields=FIELDS.replace(b": ", b":")),
    "tabs around a value": get(fields=FIELDS + b"X:\ta\t\r\n"),
    "a byte outside ASCII in a value": get(fields=FIELDS + b"X: a\xe9\r\n"),
    "an empty value": get(fields=FIELDS + b"X:\r\n"),
    "a length with zeros in front": post(b"Content-Length: 003\r\n", b"abc"),
    "a length with a space behind": post(b"Content-Length: 3 \r\n", b"abc"),
    "a length of zero": post(b"Content-Length: 0\r\n"),
    "no length": post(b""),
    "a body with GET": b"GET /x HTTP/1.1\r\n" + FIELDS + b"Content-Length: 3\r\n\r\nabc",
    "chunks": post(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
    "chunked in another case": post(b"Transfer-Encoding: Chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size in upper case with zeros": post(CHUNKED, b"000A\r\n0123456789\r\n0000\r\n\r\n"),
    "a chunk extension": post(CHUNKED, b'3;name="value"\r\nabc\r\n0;last\r\n\r\n'),
    "no chunk but the last": post(CHUNKED, b"0\r\n\r\n"),
    "characters that browsers leave unescaped": get(b'GET /x?a={"b"|c} HTTP/1.1'.replace(b" |", b"|")),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_valid_request_is_served_however_it_is_written(
    name: str, make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(ACCEPTED[name])
        answer = await client.answer()
        assert answer.status == 200, answer.body
        assert answer.json()["line"].split(" ")[1].startswith("/x")
        assert "psk_" not in answer.body.decode()


@pytest.mark.parametrize("name", ACCEPTED)
async def test_it_is_served_alike_when_it_comes_byte_by_byte_and_a_second_time(
    name: str, make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(1 if b"HTTP/1.0" in ACCEPTED[name] else 3):
            for at in range(len(ACCEPTED[name])):
                client.writer.write(ACCEPTED[name][at : at + 1])
                await client.writer.drain()
            assert (await client.answer()).status == 200
    bodies = {seen.body for seen in replica.seen}
    assert len(bodies) == 1
