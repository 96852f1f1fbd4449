from __future__ import annotations

import re

import httpx
import pytest
from support.web.http_fixture import (
    ADMIN,
    OPERATOR,
    READER,
    GuardedServer,
    serve_guarded,
)

from herdbook.service.dashboard.pages.login import local_path

HOSTILE = [
    *(
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "\\/x",
    ),
    *("http://evil.example", "https:evil.example", "javascript:alert(1)", "evil", ""),
    *("/\t/evil.example", "/\n/evil.example", " //evil.example", "/ /x", "/é"),
    *(
        "/a\r\nSet-Cookie: a=b",
        "/a\\b",
        "/%\x00",
        "/" + "a" * 2000,
        "data:,x",
        "?",
        "#",
    ),
    *("/login", "/logout", "/login?next=/login"),
]
OURS = [
    *(
        "/",
        "/models/a",
        "/models/hf.co/a%20b%2Fc",
        "/log?before=3&model=a:b",
        "/%2f%2fevil",
    ),
    *("/a//b", "/@evil.example", "/.//evil.example", "/models/login"),
]


async def proof_of(server: GuardedServer, one: httpx.AsyncClient) -> dict[str, str]:
    """Return what the form to sign out would have: this application has no pages."""
    cookie = f"herdbook_session={one.cookies['herdbook_session']}".encode()
    principal = server.authenticator.authenticate(
        {"headers": [(b"cookie", cookie)], "client": None}
    )
    proof, planted = server.authenticator.forms.prove({"headers": []}, principal)
    assert planted is not None
    one.cookies.set("herdbook_form", planted.partition(";")[0].partition("=")[2])
    return {"proof": proof}


@pytest.mark.parametrize("text", HOSTILE)
def test_login_never_redirects_to_another_site(text: str) -> None:
    assert local_path(text) == "/"


@pytest.mark.parametrize("text", OURS)
def test_login_redirects_to_the_requested_page(text: str) -> None:
    assert local_path(text) == text


async def test_sign_in_and_out_work_without_javascript() -> None:
    async with (
        serve_guarded() as server,
        server.client(headers={"accept": "text/html"}) as one,
    ):
        led = await one.get("/models/a")
        form = await one.get(led.headers["location"])
        hidden = re.search(r'name="next" value="([^"]*)"', form.text)
        assert hidden is not None
        signed_in = await one.post(
            "/login", data={"next": hidden[1], "token": f" {READER}\n"}
        )
        page = await one.get(signed_in.headers["location"])
        unproven = await one.post("/logout")
        signed_out = await one.post("/logout", data=await proof_of(server, one))
        after = await one.get("/models/a")

    assert unproven.status_code == 403
    assert "<script" not in form.text
    assert "style=" not in form.text
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/models/a")
    assert READER not in str(signed_in.headers)
    assert page.status_code == 200
    assert (signed_out.status_code, signed_out.headers["location"]) == (303, "/login")
    assert (after.status_code, after.headers["location"]) == (
        303,
        "/login?next=/models/a",
    )


@pytest.mark.parametrize("wanted", HOSTILE[:10])
async def test_login_form_posts_to_this_site_only(wanted: str) -> None:
    async with serve_guarded() as server, server.client() as client:
        form = await client.get("/login", params={"next": wanted})
        answer = await client.post("/login", data={"next": wanted, "token": ADMIN})

    assert 'name="next" value="/"' in form.text
    assert answer.headers["location"] == "/"


async def test_link_from_another_site_needs_no_new_login() -> None:
    """A browser sends the cookie with no link of another site, but with ours."""
    async with serve_guarded() as server, server.client() as client:
        form = await client.get("/login?next=/models/a")

    assert '<a href="/models/a">Continue</a>' in form.text


async def test_text_of_the_link_is_escaped() -> None:
    async with serve_guarded() as server, server.client() as client:
        form = await client.get("/login", params={"next": '/"><script>x</script>'})
        wrong = await client.post(
            "/login", data={"token": "<script>y</script>", "next": "/'\"<b>"}
        )

    assert "<script" not in form.text + wrong.text
    assert "<b>" not in wrong.text
    assert "y</script" not in wrong.text


async def test_wrong_tokens_in_forms_count_like_those_of_programs() -> None:
    wrong = {"authorization": "Bearer wrong"}
    async with serve_guarded(failures=4) as server, server.client() as client:
        pages = [await client.post("/login", data={"token": "wrong"}) for _ in range(3)]
        asked = await client.get("/v1/who", headers=wrong)
        refused = await client.post("/login", data={"token": OPERATOR})
        program = await client.get("/v1/who", headers=wrong)

    assert [page.status_code for page in pages] == [401, 401, 401]
    assert "The token is unknown." in pages[0].text
    assert "set-cookie" not in pages[0].headers
    assert asked.status_code == 401
    assert (refused.status_code, program.status_code) == (429, 429)
    assert int(refused.headers["retry-after"]) > 50
    assert "too many wrong tokens" in refused.text
    assert refused.headers["content-type"].startswith("text/html")
    assert "set-cookie" not in refused.headers


async def test_empty_form_is_not_a_failure() -> None:
    async with serve_guarded(failures=1) as server, server.client() as client:
        empty = [
            await client.post("/login", data=data)
            for data in ({"token": ""}, {"token": " "}, {"next": "/a"})
        ]
        right = await client.post("/login", data={"token": OPERATOR})

    assert [answer.status_code for answer in empty] == [401, 401, 401]
    assert 'value="/a"' in empty[2].text
    assert right.status_code == 303


async def test_only_forms_are_accepted() -> None:
    async with serve_guarded() as server, server.client() as client:
        json = await client.post("/login", json={"token": OPERATOR})
        files = await client.post("/login", files={"token": OPERATOR.encode()})
        form = {"content-type": "application/x-www-form-urlencoded"}
        many = await client.post("/login", content="a=1&" * 50, headers=form)
        query = await client.post(f"/login?token={OPERATOR}", headers=form)
        long = await client.post("/login", content="a" * 70_000, headers=form)

    assert [json.status_code, files.status_code] == [415, 415]
    assert many.status_code == 400
    assert query.status_code == 401
    assert long.status_code == 413


async def test_other_sites_cannot_sign_users_in_or_out() -> None:
    foreign = {"origin": "http://evil.example"}
    async with serve_guarded() as server, server.client(headers=foreign) as client:
        signed_in = await client.post("/login", data={"token": OPERATOR})
        signed_out = await client.post("/logout")

    assert signed_in.status_code == signed_out.status_code == 403
    assert "set-cookie" not in signed_in.headers


async def test_cookie_behind_https_is_sent_only_over_https() -> None:
    async with serve_guarded(secure=True) as server, server.client() as client:
        answer = await client.post("/login", data={"token": OPERATOR})

    assert answer.headers["set-cookie"].endswith("; Secure")


async def test_no_login_without_tokens() -> None:
    async with serve_guarded(tokens=()) as server, server.client() as client:
        asked = await client.get("/login")
        given = await client.post("/login", data={"token": "x"})

    assert (asked.status_code, asked.headers["location"]) == (303, "/")
    assert (given.status_code, given.headers["location"]) == (303, "/")
