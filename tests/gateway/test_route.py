"""Routes: the table of paths, and the ways round it that are refused."""

import string
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway import route
from ratekeeper.providers.facts import Dialect

ANTHROPIC = [(b"anthropic-version", b"2023-06-01")]


@pytest.mark.parametrize(
    ("path", "headers", "dialect", "provider", "url"),
    [
        ("/v1/chat/completions", [], "openai", "", "B/chat/completions"),
        ("/v1/responses/resp_1/cancel", [], "openai", "", "B/responses/resp_1/cancel"),
        ("/v1/embeddings", [], "openai", "", "B/embeddings"),
        ("/v1/models", [], "openai", "", "B/models"),
        (
            "/v1/models/ft:gpt-4o:org::id",
            [],
            "openai",
            "",
            "B/models/ft:gpt-4o:org::id",
        ),
        ("/v1/files/file-1/content", [], "openai", "", "B/files/file-1/content"),
        ("/v1/models", ANTHROPIC, "anthropic", "", "B/v1/models"),
        ("/v1/files", ANTHROPIC, "anthropic", "", "B/v1/files"),
        ("/v1/models", [(b"x-api-key", b"k")], "anthropic", "", "B/v1/models"),
        ("/v1/messages", [], "anthropic", "", "B/v1/messages"),
        ("/v1/messages/batches", [], "anthropic", "", "B/v1/messages/batches"),
        ("/anthropic/v1/messages", [], "anthropic", "", "B/v1/messages"),
        ("/anthropic/v1/models", [], "anthropic", "", "B/v1/models"),
        (
            "/p/deepseek/chat/completions",
            [],
            "openai",
            "deepseek",
            "B/chat/completions",
        ),
        (
            "/p/deepseek/v1/chat/completions",
            [],
            "openai",
            "deepseek",
            "B/chat/completions",
        ),
        ("/p/claude/v1/messages", [], "anthropic", "claude", "B/v1/messages"),
        (
            "/gemini/v1beta/openai/chat/completions",
            [],
            "openai",
            "gemini",
            "B/chat/completions",
        ),
    ],
)
def test_a_path_leads_below_the_base_url(
    path: str, headers: list[tuple[bytes, bytes]], dialect: str, provider: str, url: str
) -> None:
    found = route.find(path.encode(), headers)

    assert found is not None
    assert (dialect, provider) == (found.dialect, found.provider)
    assert url == route.url_of("B", found)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (
            "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
            "https://g/v1beta/models/gemini-2.5-flash:generateContent",
        ),
        ("/gemini/v1/models", "https://g/v1/models"),
        ("/gemini/upload/v1beta/files", "https://g/upload/v1beta/files"),
        ("/gemini/v1beta/cachedContents/abc", "https://g/v1beta/cachedContents/abc"),
    ],
)
@pytest.mark.parametrize(
    "base", ["https://g/v1beta/openai", "https://g/v1beta", "https://g"]
)
def test_gemini_begins_at_its_own_root(path: str, url: str, base: str) -> None:
    found = route.find(path.encode(), [])

    assert found is not None
    assert Dialect.GEMINI is found.dialect
    assert url == route.url_of(base, found)


GOOGLE = [(b"x-goog-api-key", b"k")]


@pytest.mark.parametrize(
    ("path", "headers", "dialect", "url"),
    [
        ("/v1/models", ANTHROPIC, "anthropic", "https://h/v1/models"),
        ("/v1/files/file_1", ANTHROPIC, "anthropic", "https://h/v1/files/file_1"),
        ("/v1/skills", ANTHROPIC, "anthropic", "https://h/v1/skills"),
        ("/v1/models", GOOGLE, "gemini", "https://h/v1/models"),
        ("/v1/batches/b-1", GOOGLE, "gemini", "https://h/v1/batches/b-1"),
        ("/v1/cachedContents", [], "gemini", "https://h/v1/cachedContents"),
        ("/v1/models/m:countTokens", [], "gemini", "https://h/v1/models/m:countTokens"),
        ("/v1beta/models", [], "gemini", "https://h/v1beta/models"),
        ("/v1beta/interactions", [], "gemini", "https://h/v1beta/interactions"),
        ("/v1beta/openai/models", [], "openai", "https://h/v1/models"),
        ("/v1/models", [], "openai", "https://h/v1/models"),
        (
            "/v1/models/ft:gpt-4o:o::id",
            [],
            "openai",
            "https://h/v1/models/ft:gpt-4o:o::id",
        ),
        ("/models", GOOGLE, "openai", "https://h/v1/models"),
    ],
)
def test_below_one_provider_a_path_is_what_its_caller_speaks(
    path: str, headers: list[tuple[bytes, bytes]], dialect: str, url: str
) -> None:
    found = route.find(f"/p/mine{path}".encode(), headers)

    assert found is not None
    assert (dialect, "mine") == (found.dialect, found.provider)
    assert url == route.url_of("https://h/v1", found)


def test_uploads_below_one_provider_are_geminis_alone() -> None:
    path = "/upload/v1beta/files"

    assert route.find(f"/p/gemini{path}".encode(), []) is not None
    assert route.find(f"/p/mine{path}".encode(), []) is None


@pytest.mark.parametrize(
    ("path", "base", "url", "family"),
    [
        (
            "/p/groq/openai/v1/chat/completions",
            "https://api.groq.com/openai/v1",
            "https://api.groq.com/openai/v1/chat/completions",
            "chat",
        ),
        (
            "/p/fireworks/inference/v1/embeddings",
            "https://api.fireworks.ai/inference/v1",
            "https://api.fireworks.ai/inference/v1/embeddings",
            "embeddings",
        ),
        (
            "/p/mine/openai/v1/responses",
            "https://mine.openai.azure.com/openai/v1",
            "https://mine.openai.azure.com/openai/v1/responses",
            "responses",
        ),
        (
            "/p/mine/openai/deployments/gpt-4o/chat/completions",
            "https://mine.openai.azure.com/openai/v1",
            "https://mine.openai.azure.com/openai/deployments/gpt-4o/chat/completions",
            "chat",
        ),
        (
            "/p/azure/openai/files/file-1",
            "https://mine.openai.azure.com/openai/v1",
            "https://mine.openai.azure.com/openai/files/file-1",
            "files",
        ),
        (
            "/p/cohere/v2/chat",
            "https://api.cohere.com/compatibility/v1",
            "https://api.cohere.com/v2/chat",
            "chat",
        ),
        (
            "/p/cohere/v2/embed",
            "https://api.cohere.com/compatibility/v1",
            "https://api.cohere.com/v2/embed",
            "embed",
        ),
        (
            "/p/cohere/compatibility/v1/chat/completions",
            "https://api.cohere.com/compatibility/v1",
            "https://api.cohere.com/compatibility/v1/chat/completions",
            "chat",
        ),
    ],
)
def test_a_providers_own_paths_lead_where_its_sdk_means(
    path: str, base: str, url: str, family: str
) -> None:
    found = route.find(path.encode(), [])

    assert found is not None
    assert (url, family) == (route.url_of(base, found), found.family)


def test_a_base_url_that_ends_in_the_version_does_not_repeat_it() -> None:
    found = route.find(b"/v1/messages", [])

    assert found is not None
    assert "https://relay/v1/messages" == route.url_of("https://relay/v1", found)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/organization/admin_api_keys",
        "/v1/organizations/api_keys",
        "/v1/realtime/client_secrets",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/chat/%2E%2E/organization",
        "/v1/chat/..%2forganization",
        "/v1/chat/%252e%252e/organization",
        "/v1//chat/completions",
        "//evil.example/v1/chat/completions",
        "/v1/chat\\completions",
        "/v1/chat/%5c..%5corganization",
        "/v1/chat/%00",
        "/v1/chat/ completions",
        "/v1/chat/./completions",
        "/p/openai/organization",
        "/p/azure/openai/organization",
        "/p/azure/openai/deployments",
        "/p/azure/openai/deployments/gpt-4o",
        "/p/azure/openai/deployments/gpt-4o/keys",
        "/p/groq/openai/v1/organization",
        "/p/cohere/v2/keys",
        "/p/openai/../anthropic/v1/messages",
        "/p//chat/completions",
        "/gemini/v1beta/authTokens",
        "/gemini/upload/v1beta/models",
        "/anthropic/v1/organizations/me",
        "/anthropic/v2/messages",
        "/admin/keys",
        "/v1/" + "a" * 3000,
        "http://169.254.169.254/v1/models",
        "/v1/chat/caf\xe9",
        "/v1/chat",
        "/v1/chat/Completions",
        "/v1/chat/completions;a",
        "/v1/chat/completions%3Ba",
        "/v1/chat/completions%3Fa",
        "/v1/chat/completions%23a",
        "/v1/chat/completion%73",
        "/v1/%63hat/completions",
        "/v1/completions/x",
        "/v1/messages/Count_tokens",
        "/p/openai/v1/chat/%63ompletions",
        "/p/azure/openai/deployments/gpt-4o/chat/Completions",
        "/p/azure/openai/deployments/chat/embeddings/x",
        "/gemini/v1beta/models/gemini-2.5-pro:generate%43ontent",
        "/gemini/v1beta/models/gemini-2.5-pro%3AgenerateContent",
        "/gemini/v1beta/models/gemini-2.5-pro%3agenerateContent",
        "/gemini/v1beta/model%73/gemini-2.5-pro:generateContent",
        "/p/gemini/v1beta/models/gemini-2.5-pro%3AgenerateContent",
    ],
)
def test_what_is_not_in_the_table_leads_nowhere(path: str) -> None:
    assert route.find(path.encode("latin-1"), []) is None


PLAIN = string.ascii_letters + string.digits + "-._~"


@given(st.text(PLAIN, min_size=1, max_size=20), st.data())
def test_a_word_is_written_in_one_way(word: str, data: st.DataObject) -> None:
    """Else a path could lead where no limit on tokens knows it."""
    at = data.draw(st.integers(0, len(word) - 1))
    spelled = f"%{ord(word[at]):02x}"
    if data.draw(st.booleans()):
        spelled = spelled.upper()

    assert route.is_plain(f"/v1/models/{word}") is (word not in {".", ".."})
    assert not route.is_plain(f"/v1/models/{word[:at]}{spelled}{word[at + 1 :]}")


@given(st.text("ab:@!$&'()*+,= <>[]{}|^`\"äü", min_size=1, max_size=20))
def test_what_has_to_be_escaped_may_be(name: str) -> None:
    path = f"/models/{urllib.parse.quote(name, safe='')}"
    found = route.find(f"/v1{path}".encode(), [])
    written = None if found is None else found.path

    assert (path if name == name.strip() else None) == written


def test_a_colon_that_is_escaped_is_no_verb_of_googles() -> None:
    path = b"/p/mine/v1/models/m%3AgenerateContent"

    assert route.find(path, GOOGLE) is None
    assert route.find(b"/p/mine/v1/models/ft%3Agpt-4o", []) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/chatcmpl-1",
        "/v1/chat/completions/chatcmpl-1/messages",
        "/v1/chat/deferred-completion/1",
        "/p/mistral/v1/chat/moderations",
        "/v1/messages/count_tokens",
        "/v1/messages/batches/msgbatch_1/results",
        "/p/azure/openai/deployments/chat/chat/completions",
        "/p/azure/openai/deployments/messages/completions",
        "/p/cohere/v2/chat",
        "/p/cohere/v1/chat",
        "/p/cohere/v2/rerank",
        "/v1/completions/",
    ],
)
def test_what_providers_have_below_a_word_is_in_the_table(path: str) -> None:
    assert route.find(path.encode(), []) is not None


@given(st.text(string.printable, max_size=60))
def test_no_path_leaves_the_base_url(tail: str) -> None:
    found = route.find(f"/v1/files/{tail}".encode("latin-1", "replace"), [])

    if found is not None:
        url = urllib.parse.urlsplit(route.url_of("https://base.example/v1", found))
        plain = urllib.parse.unquote(url.path)
        assert "base.example" == url.netloc
        assert plain.startswith("/v1/files")
        assert ".." not in plain.split("/")
        assert "" not in plain.split("/")[1:]


def test_a_model_is_read_from_a_path() -> None:
    path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"

    assert "gemini-2.5-pro" == route.model_in(path)
    assert "" == route.model_in("/chat/completions")


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/gemini/x", [], Dialect.GEMINI),
        ("/anthropic/x", [], Dialect.ANTHROPIC),
        ("/x", ANTHROPIC, Dialect.ANTHROPIC),
        ("/x", [], Dialect.OPENAI),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_the_likeliest_words(
    path: str, headers: list[tuple[bytes, bytes]], dialect: str
) -> None:
    assert dialect is route.guessed(path.encode(), headers)
