"""Tests that the webhook sends each alarm event once and in order to a real HTTP server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_alarms import DECLARATION, acknowledgement, at, discharge
from tests.support.batches import batch, handler_of, message
from tests.support.receiver import Receiver
from tests.support.servers import rows
from tool.alarms import Alarms
from tool.database import Database, connect
from tool.declarations import model_rows
from tool.webhook import NotAccepted, Webhook

pytestmark = pytest.mark.timeout(60, func_only=True)

EXPECTED = [(2, "raise"), (4, "again"), (5, "clear"), (7, "raise"), (8, "clear")]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database with alarms of model m, version 1, that are not sent yet."""
    opened = connect(url)
    opened.remember_models(model_rows(DECLARATION)[:1])
    sent = (at(7), at(8), acknowledgement(8), at(11), at(12, 20.0))
    handler_of(opened, DECLARATION).handle(batch(0, *sent, at(13, 300.0), at(14), discharge()))
    Alarms(opened, webhook=True).compute()
    yield opened
    opened.close()


def sent(receiver: Receiver) -> list[tuple[int, str]]:
    return [(alarm["seq"], alarm["kind"]) for alarm in receiver.accepted]


def test_each_event_is_sent_once_in_order(url: str, database: Database, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(b"\xef\xbb\xbfsecret\r\n")  # as Windows editors write it
    with Receiver() as receiver:
        Webhook(database, receiver.url, str(token)).send()
        Webhook(database, receiver.url, str(token)).send()
        assert sent(receiver) == EXPECTED
        assert len(receiver.requests) == len(EXPECTED)
        assert {request.authorization for request in receiver.requests} == {"Bearer secret"}
        assert [request.key for request in receiver.requests] == [
            f"s-{seq}/m/1" for seq, _ in EXPECTED
        ]
        first = receiver.accepted[0]
        assert (first["pat_id"], first["model"], first["raised_seq"]) == (17, "m", 2)
    assert rows(url, "SELECT * FROM outbox") == []


@pytest.mark.parametrize("status", [0, 302, 400, 404, 500])
def test_an_event_that_is_not_accepted_is_sent_again(
    status: int, url: str, database: Database
) -> None:
    with Receiver(lambda number: status if number in (0, 2, 3) else 200) as receiver:
        webhook = Webhook(database, receiver.url)
        for _ in range(3):
            with pytest.raises(NotAccepted):
                webhook.send()
        webhook.send()
        assert sent(receiver) == EXPECTED
        assert len(receiver.requests) == len(EXPECTED) + 3
    assert rows(url, "SELECT * FROM outbox") == []


def test_without_a_receiver_or_a_token_the_events_wait(
    url: str, database: Database, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_bytes(b"two\r\nlines")
    with Receiver() as receiver, pytest.raises(NotAccepted):
        Webhook(database, receiver.url, str(token)).send()
    assert receiver.requests == []
    with pytest.raises(NotAccepted):
        Webhook(database, receiver.url).send()
    assert rows(url, "SELECT COUNT(*) FROM outbox") == [(len(EXPECTED),)]


def test_alarms_of_old_predictions_are_not_sent(url: str) -> None:
    opened = connect(url)
    handler_of(opened, DECLARATION).handle(batch(0, at(7), at(8), message(20.0, hour=9)))
    rows(url, "UPDATE predictions SET created_at = '2020-01-01 00:00:00.000'")
    opened.remember_models(model_rows(DECLARATION))
    Alarms(opened, webhook=True).compute()
    opened.close()
    assert len(rows(url, "SELECT seq FROM alarms")) > 0
    assert rows(url, "SELECT * FROM outbox") == []
