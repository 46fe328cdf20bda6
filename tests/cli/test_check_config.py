"""`ratekeeper check-config` says what a file sets up, or every mistake in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratekeeper.cli.main import run

GOOD = "providers: {openai: {accounts: [{api_key: 'env:RK_A', limits: [5 rpm]}]}}\n"
BAD = "provider: {}\nproviders: {openai: {accounts: [{limits: [5 rpn]}]}}\n"


def _file(folder: Path, text: str) -> str:
    path = folder / "ratekeeper.yaml"
    path.write_text(text)
    return str(path)


def test_a_good_file_is_told_account_by_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RK_A", "sk-canary-0123456789")
    code = run(["check-config", _file(tmp_path, GOOD)])
    said = capsys.readouterr()

    assert 0 == code
    assert [
        f"listens on 127.0.0.1:8080; sqlite:///{tmp_path}/ratekeeper.db; client keys",
        "waits up to 20s; drains up to 10m",
        "openai: 5 rpm; RK_A (set)",
    ] == said.out.splitlines()
    assert "canary" not in said.out + said.err


def test_a_bad_file_exits_with_2_and_names_every_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, BAD)
    code = run(["check-config", path])
    lines = capsys.readouterr().err.splitlines()

    assert 2 == code
    assert [f"{path}:1: provider", f"{path}:2: providers.openai", "2 mistakes"] == [
        lines[0][: len(path) + 12],
        lines[1][: len(path) + 20],
        lines[2],
    ]


@pytest.mark.parametrize(("text", "ok"), [(GOOD, True), (BAD, False)])
def test_json_tells_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, ok: bool
) -> None:
    code = run(["check-config", "--json", _file(tmp_path, text)])
    said = json.loads(capsys.readouterr().out)

    assert (0 if ok else 2) == code
    assert ok is said["ok"]
    assert ((0, 1) if ok else (2, 0)) == (len(said["mistakes"]), len(said["accounts"]))


def test_lists_that_show_more_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, GOOD + "unowned: shown\n")
    run(["check-config", path])
    said = capsys.readouterr().out.splitlines()
    run(["check-config", "--json", path])

    assert "lists show everyone what was not made through the gateway" == said[-1]
    assert "shown" == json.loads(capsys.readouterr().out)["unowned"]


def test_a_file_that_is_not_there_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["check-config", str(tmp_path / "absent.yaml")])

    assert 2 == code
    assert "No such file" in capsys.readouterr().err


def test_the_gateway_s_part_is_told_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLYSHEEP_API_KEY", raising=False)
    text = GOOD.replace(
        "}]}}", "}, {api_key: 'env:RK_B', tier: 1}], models: {gpt*: [9 rpm]}}}"
    ) + (
        "fallbacks: {gpt-4o: [openai/gpt-4o, holysheep/gpt-4o]}\n"
        "teams: {search: {limits: $50/day, weight: 3, priority: batch, max_wait: 5m}}\n"
        "client_keys:\n"
        f"  - {{name: web, team: search, hash: '{'0f' * 32}', expires: 2026-12-31,\n"
        "     limits: [5 rpm, {limit: 9k tpm, shadow: true}], shadow: true}\n"
        "listen: 127.0.0.1:0\nauth: none\nstore: sqlite:////x.db\n"
    )
    code = run(["check-config", _file(tmp_path, text)])

    assert 0 == code
    assert [
        "listens on 127.0.0.1:0; sqlite:////x.db; callers need no key",
        "waits up to 20s; drains up to 10m",
        "openai: 5 rpm; RK_A (not set)",
        "openai: learned; RK_B (not set)",
        "  gpt-5.4, gpt-5.4-20*: 500 rpm, 500k tpm",
        "  text-embedding-3-small: 3000 rpm, 1M tpm",
        "holysheep: learned; HOLYSHEEP_API_KEY (not set: fallbacks go without it)",
        "openai, models gpt*: 9 rpm",
        "fallbacks of gpt-4o: openai/gpt-4o, holysheep/gpt-4o",
        "team search: $50/day; weight 3; batch; waits 5m",
        "client key web: 5 rpm, 9k tpm (watched); team search; until 2026-12-31; "
        "all only watched",
    ] == capsys.readouterr().out.splitlines()


def test_a_limit_that_no_call_uses_up_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "teams: {search: {limits: [100 calls/minute, 5 concurrent, $5/day, 9 tpm]}}\n"
    )
    code = run(["check-config", _file(tmp_path, text)])
    said = capsys.readouterr()
    run(["check-config", "--json", _file(tmp_path, text)])
    notes = json.loads(capsys.readouterr().out)["notes"]

    assert 0 == code
    assert 1 == len(notes)
    assert f"note: {notes[0]}\n" == said.err
    assert "teams.search: no forwarded call takes any 'calls', but requests" in said.err
