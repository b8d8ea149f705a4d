"""The context of a request, by plain calls: what it takes from headers, and what it makes."""

import pytest

from petsage.context import new_request_context, parse_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    "request_id",
    ["a", "7" * 128, "0af7651916cd43dd", "Az09._~:@/+=-", "arn:aws:x/1-2@3"],
)
def test_a_well_formed_request_id_is_kept(request_id):
    assert new_request_context(request_id).request_id == request_id


@pytest.mark.parametrize(
    "request_id",
    [
        "",
        " a",
        "a b",
        "a\n",
        "a\r\nX-Evil: 1",
        "7" * 129,
        "é",
        "\u0661",  # a digit, and no ASCII one
        "\udcff",
        "a;rm -rf",
        'a"b',
        "<b>",
        "a,b",
        "\x1b[31m",
    ],
)
def test_a_malformed_request_id_is_replaced(request_id):
    made = new_request_context(request_id).request_id

    assert made != request_id
    assert len(made) == 32
    assert set(made) <= set("0123456789abcdef")


def test_each_request_gets_an_id_of_its_own():
    assert len({new_request_context().request_id for _ in range(1000)}) == 1000


def test_a_trace_is_continued_under_a_span_of_our_own():
    context = new_request_context(traceparent=f"00-{TRACE}-{SPAN}-01")

    assert context.trace_id == TRACE
    assert context.span_id != SPAN
    assert context.traceparent == f"00-{TRACE}-{context.span_id}-01"


def test_a_trace_is_begun_where_there_is_none():
    context = new_request_context()

    assert parse_traceparent(context.traceparent) is not None
    assert context.trace_flags == "00"


def test_made_ids_are_never_all_zeros(monkeypatch):
    monkeypatch.setattr("petsage.context.getrandbits", lambda _: 0)

    assert parse_traceparent(new_request_context().traceparent) is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-011",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"0-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"FF-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_counts_as_none(header):
    assert parse_traceparent(header) is None


@pytest.mark.parametrize("rest", ["", "-", "-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(rest):
    trace = parse_traceparent(f"cc-{TRACE}-{SPAN}-01{rest}")

    assert trace == (TRACE, SPAN, "01")


@pytest.mark.parametrize(
    ("sent", "kept"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03")]
)
def test_flags_without_a_meaning_are_not_passed_on(sent, kept):
    assert new_request_context(traceparent=f"00-{TRACE}-{SPAN}-{sent}").trace_flags == kept
