"""Lessons: what answers say they used corrects what the next calls ask for."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper.client.attempt import Attempt, Counter
from ratekeeper.client.lessons import lessons_of
from ratekeeper.limiter import Limiter
from ratekeeper.providers.calibration import STREAMS, TRUSTED
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.estimate import EXACT, PER_MESSAGE
from ratekeeper.providers.facts import UNSET_OUTPUT, Usage
from ratekeeper.stores.memory import MemoryStore
from tests.client.wire import completion, delta, events
from tests.client.wire import usage as said_usage

if TYPE_CHECKING:
    from ratekeeper.client.attempt import Ask

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}
PROMPT = "Say in a few words what the following report is about. " * 40


def chat(text: str = PROMPT, **fields: Any) -> bytes:
    said = [{"role": "user", "content": text}]
    request = {"model": "deepseek-chat", "messages": said, "max_tokens": 90}
    return json.dumps({**request, **fields}).encode()


class Desk:
    """Counts calls to a provider for one limiter, and answers them."""

    def __init__(
        self,
        provider: str = "deepseek",
        store: MemoryStore | None = None,
        limits: tuple[str, ...] = ("1M rpm", "900M tpm"),
        prices: Any = None,
    ) -> None:
        self.limiter = Limiter(*limits, store=store or MemoryStore())
        self.counter = Counter(self.limiter, find_provider(provider), prices)

    def ask(self, body: bytes | None = None, **options: Any) -> Ask:
        body = chat() if body is None else body
        path = "/v1/chat/completions"
        return self.counter.ask(
            "POST", path, body, timeout=0, again=False, options=options
        )

    def tokens(self, body: bytes | None = None, **options: Any) -> int:
        return self.ask(body, **options).facts.input_tokens

    def call(
        self, put: int, out: int = 5, body: bytes | None = None, **options: Any
    ) -> None:
        """Make a call whose answer says what it used."""
        ask = self.ask(body, **options)
        attempt = Attempt(self.counter, ask, self.limiter.acquire(**ask.terms))
        attempt.answered(JSON)
        attempt.feed(completion(put, out))
        attempt.end()


def estimated(desk: Desk, body: bytes | None = None) -> int:
    """Return the uncorrected estimate of a prompt, its texts and its least frame."""
    estimate = desk.ask(body).facts.estimate
    assert estimate is not None

    return estimate.text + 3 * 2


def test_calls_that_come_to_more_are_estimated_higher_at_once() -> None:
    desk = Desk()
    before = desk.tokens()
    desk.call(3 * estimated(desk))

    assert desk.tokens() > 1.8 * before


def test_calls_that_come_to_less_are_estimated_lower_after_a_few() -> None:
    desk, body = Desk(), chat("今天天气很好，我们去公园。" * 50)
    before, counted = desk.tokens(body), estimated(desk, body) * 9 // 10
    for _ in range(TRUSTED):
        desk.call(counted, body=body)
    soon = desk.tokens(body)
    for _ in range(100):
        desk.call(counted, body=body)

    assert counted < soon < before
    assert counted <= desk.tokens(body) <= counted * 1.03 + 2 * PER_MESSAGE


def test_no_lesson_takes_a_long_run_below_what_it_must_be() -> None:
    desk = Desk()
    before, run = desk.tokens(), chat("a" * 10_000)
    for _ in range(200):
        desk.call(100)

    assert desk.tokens() < before
    assert desk.tokens(run) >= 9_000


def test_no_lesson_takes_a_prompt_above_its_bytes() -> None:
    desk = Desk()
    for _ in range(20):
        desk.call(10**6)

    assert desk.tokens() <= len(PROMPT) + 2 * PER_MESSAGE * 1.25 + 1


def test_kinds_of_text_and_callers_and_models_are_told_apart() -> None:
    desk = Desk()
    chinese, other = chat("今天天气很好，我们去公园。" * 50), chat(model="qwen-max")
    before = (desk.tokens(chinese), desk.tokens(other), desk.tokens(key="other"))
    for _ in range(20):
        desk.call(2 * estimated(desk))

    assert before == (
        desk.tokens(chinese),
        desk.tokens(other),
        desk.tokens(key="other"),
    )


def test_models_of_unknown_tokenizers_are_told_apart_by_name() -> None:
    desk = Desk("openrouter")
    one, other = chat(model="maker/one"), chat(model="maker/other")
    before = desk.tokens(other)
    desk.call(2 * estimated(desk, one), body=one)

    assert before == desk.tokens(other)
    assert desk.tokens(one) > 1.5 * before


def test_cached_input_was_sent_as_well() -> None:
    """Anthropic reports it apart from the rest."""
    desk = Desk("anthropic", limits=("1M rpm", "900M itpm", "900M otpm"))
    body = chat(model="claude-sonnet-5")
    counter = desk.counter
    ask = counter.ask("POST", "/v1/messages", body, timeout=0, again=False)
    estimate = ask.facts.estimate
    assert estimate is not None
    plain = {"input_tokens": 20, "cache_read_input_tokens": estimate.text - 10}
    for _ in range(TRUSTED):
        attempt = Attempt(counter, ask, desk.limiter.acquire(**ask.terms))
        attempt.answered(JSON)
        attempt.feed(json.dumps({"usage": {**plain, "output_tokens": 5}}).encode())
        attempt.end()
    after = counter.ask("POST", "/v1/messages", body, timeout=0, again=False)

    assert after.facts.input_tokens > estimate.text


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 0, "completion_tokens": 5},
        {"prompt_tokens": -7, "completion_tokens": 5},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": "many", "completion_tokens": 5},
        {"completion_tokens": 5},
        None,
    ],
)
def test_a_report_that_counts_no_input_teaches_nothing_about_it(usage: object) -> None:
    desk = Desk()
    before = desk.tokens()
    for _ in range(20):
        ask = desk.ask()
        attempt = Attempt(desk.counter, ask, desk.limiter.acquire(**ask.terms))
        attempt.answered(JSON)
        attempt.feed(json.dumps({"usage": usage, "choices": []}).encode())
        attempt.end()

    assert before == desk.tokens()


def test_an_answer_that_failed_teaches_nothing() -> None:
    desk = Desk()
    before, error = desk.tokens(), {"error": {"message": "broken", "code": 500}}
    ask = desk.ask(chat(stream=True))
    attempt = Attempt(desk.counter, ask, desk.limiter.acquire(**ask.terms))
    attempt.answered(SSE)
    for part in events(delta("Half"), error, said_usage(5000, 2)):
        attempt.feed(part)
    attempt.end()

    assert before == desk.tokens()


def test_a_prompt_of_few_words_or_with_pictures_says_little_about_texts() -> None:
    desk = Desk()
    picture = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}
    text = {"type": "text", "text": PROMPT}
    before = desk.tokens()
    for _ in range(20):
        desk.call(7, body=chat("Hi"))
        desk.call(
            9_000, body=chat(messages=[{"role": "user", "content": [text, picture]}])
        )

    assert before == desk.tokens()


def test_a_body_that_cannot_be_read_is_left_as_it_is() -> None:
    desk = Desk()
    for _ in range(20):
        desk.call(500, body=b"no JSON at all" * 9)

    assert 32 == desk.tokens(b"no JSON at all" * 9)


def test_a_conversation_that_the_provider_keeps_may_pass_the_bytes_that_are_sent() -> (
    None
):
    desk = Desk("openai")
    body = json.dumps({"model": "gpt-5.4", "input": PROMPT}).encode()
    more = {"model": "gpt-5.4", "input": "漢" * 400, "previous_response_id": "r1"}
    chained = json.dumps(more).encode()

    def facts(said: bytes) -> Any:
        ask = desk.counter.ask("POST", "/v1/responses", said, timeout=0, again=False)
        return ask.facts

    alone, before = facts(body).input_tokens, facts(chained)
    for _ in range(20):
        desk.counter.lessons.learn("openai", before, None, Usage(input_tokens=9000))

    assert alone == facts(body).input_tokens
    assert before.input_tokens * 2 < facts(chained).input_tokens <= 9000


# Output.


def held(desk: Desk, **fields: Any) -> int:
    """Return the output held for a call."""
    ask = desk.ask(chat(**fields))
    return int(ask.terms["tokens"]) - ask.facts.input_tokens


def test_without_a_bound_the_output_held_is_what_such_calls_put_out() -> None:
    desk = Desk()
    open_ended = chat(max_tokens=None)
    assert UNSET_OUTPUT == held(desk, max_tokens=None)
    for _ in range(100):
        desk.call(500, 40, body=open_ended)

    assert 40 == held(desk, max_tokens=None)
    assert 120 == held(desk, max_tokens=None, n=3)
    assert 90 == held(desk)


def test_the_output_of_bounded_calls_says_nothing_about_the_rest() -> None:
    desk = Desk()
    for _ in range(100):
        desk.call(500, 40)

    assert UNSET_OUTPUT == held(desk, max_tokens=None)


def test_long_answers_are_held_no_higher_than_a_limit_and_refuse_no_call() -> None:
    desk = Desk(limits=("1M rpm", "5k tpm"))
    lessons, facts = desk.counter.lessons, desk.ask(chat(max_tokens=None)).facts
    for _ in range(100):
        lessons.learn("deepseek", facts, None, Usage(output_tokens=60_000))
    ask = desk.ask(chat(max_tokens=None))

    assert 5000 == ask.terms["tokens"]
    desk.limiter.acquire(**ask.terms).release()


def test_a_budget_holds_more_for_a_lesson_and_never_less() -> None:
    prices = {"deepseek-chat": {"input": "1000", "output": "1"}}
    dearer, cheaper = (
        Desk(limits=("1M rpm", "$999/day"), prices=prices) for _ in range(2)
    )
    chinese = chat("今天天气很好，我们去公园。" * 50)
    before = dearer.ask(chinese).terms["usd"]
    for _ in range(120):
        dearer.call(3 * estimated(dearer, chinese), body=chinese)
        cheaper.call(estimated(cheaper, chinese) // 2, body=chinese)

    assert cheaper.tokens(chinese) < 0.7 * estimated(cheaper, chinese)
    assert before == cheaper.ask(chinese).terms["usd"]
    assert before * 2 < dearer.ask(chinese).terms["usd"]


# Exact counts.


def test_an_exact_count_learns_apart_from_the_estimates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk("openai")
    body = chat(model="gpt-4o")
    for _ in range(20):
        desk.call(2 * estimated(desk, body), body=body)
    monkeypatch.setitem(EXACT, "o200k", lambda texts: sum(map(len, texts)) // 3)

    assert len(PROMPT) // 3 + 2 * PER_MESSAGE == desk.tokens(body)


# Whose they are.


def test_what_one_limiter_learns_all_over_its_store_know() -> None:
    store = MemoryStore()
    one, other, apart = Desk(store=store), Desk(store=store), Desk()
    before = other.tokens()
    one.call(3 * estimated(one))

    assert other.tokens() > 1.8 * before
    assert before == apart.tokens()


def test_lessons_go_with_their_store() -> None:
    store = MemoryStore()
    kept = weakref.ref(lessons_of(store))
    del store
    gc.collect()

    assert kept() is None


def test_a_lesson_in_the_midst_of_another_is_dropped_and_nobody_waits() -> None:
    """As it comes when the garbage collector settles a call while one is learned."""
    desk = Desk()
    before = desk.tokens()
    with desk.counter.lessons._guard:
        desk.call(3 * estimated(desk))

    assert before == desk.tokens()


def test_lessons_from_many_threads_leave_figures_in_bounds() -> None:
    desk = Desk()
    facts = desk.ask().facts
    usage = Usage(input_tokens=2 * estimated(desk), output_tokens=9)

    def learn() -> None:
        for at in range(300):
            desk.counter.lessons.learn("deepseek", facts, f"{at % 7}", usage)
            desk.tokens(key=f"{at % 5}")

    threads = [threading.Thread(target=learn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert estimated(desk) * 1.5 < desk.tokens(key="3") <= estimated(desk) * 2.6


def test_very_many_models_and_keys_are_forgotten_again() -> None:
    desk = Desk("openrouter")
    lessons = desk.counter.lessons
    for at in range(STREAMS + 50):
        facts = desk.counter.provider.read_request(
            "POST", "/chat/completions", chat(model=f"m{at}" * 200, max_tokens=None)
        )
        lessons.learn(
            "openrouter", facts, "k" * 10_000, Usage(input_tokens=900, output_tokens=2)
        )

    assert 2 * STREAMS == len(lessons)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has none")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_a_forked_child_goes_on_learning_whoever_held_the_lock() -> None:
    desk = Desk()
    before, counted = desk.tokens(), 3 * estimated(desk)
    with desk.counter.lessons._guard:
        pid = os.fork()
        if pid == 0:
            desk.call(counted)
            os._exit(0 if desk.tokens() > 1.8 * before else 1)
    _, status = os.waitpid(pid, 0)

    assert 0 == os.waitstatus_to_exitcode(status)
