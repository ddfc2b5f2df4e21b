"""What is kept of heartbeats in memory."""

from datetime import timedelta

from penstock_scheduler.heartbeats import Hearing, Heartbeats

from .builders import T0, at, heartbeat, host, inventory, replica, report, snapshot


def test_only_what_is_new_must_be_handled() -> None:
    heard = Heartbeats()
    first = heartbeat()
    assert heard.hear(first, 0)
    assert heard.hear(heartbeat(), 2)  # not handled yet, so it still is news
    [news] = heard.news()
    heard.handled(news)
    assert heard.news() == []
    assert not heard.hear(heartbeat(), 4)
    assert heard.hear(heartbeat(parts=inventory(3)), 6)
    assert heard.hear(heartbeat(reports=(report(replica("ep_1"), 1, "ready"),)), 8)


def test_reports_in_another_order_are_nothing_new() -> None:
    heard = Heartbeats()
    one, two = report(replica("ep_1"), 1, "ready"), report(replica("ep_2"), 1, "ready")
    heard.hear(heartbeat(reports=(one, two)), 0)
    heard.handled(heard.news()[0])
    assert not heard.hear(heartbeat(reports=(two, one)), 2)


def test_what_arrives_while_the_last_is_handled_is_handled_next() -> None:
    heard = Heartbeats()
    heard.hear(heartbeat(), 0)
    [handling] = heard.news()
    newer = heartbeat(parts=inventory(1))
    heard.hear(newer, 2)
    heard.handled(handling)
    assert heard.news() == [newer]


def test_a_host_that_counts_as_gone_is_handled_again_whatever_it_says() -> None:
    heard = Heartbeats()
    heard.hear(heartbeat(), 0)
    heard.handled(heard.news()[0])
    heard.expect((host(),))
    assert not heard.hear(heartbeat(), 2)
    heard.expect((host(state="lost"),))
    assert heard.hear(heartbeat(), 4)


def test_signs_of_life_are_saved_once() -> None:
    heard = Heartbeats()
    heard.hear(heartbeat("host-a"), 1)
    heard.hear(heartbeat("host-b"), 2)
    assert heard.take_unsaved(3) == {"host-a": 2, "host-b": 1}
    assert heard.take_unsaved(4) == {}


def test_a_snapshot_is_freshened_with_what_was_heard_since() -> None:
    heard = Heartbeats()
    heard.hear(heartbeat("host-a"), 100)
    asked = snapshot([host("host-a"), host("host-b", last_seen_at=at(3))], [])
    fresh = heard.freshen(asked, at(50), 104)
    assert [each.last_seen_at for each in fresh.hosts] == [at(46), at(3)]


def test_a_host_that_announced_its_leaving_takes_nothing_for_a_while() -> None:
    heard = Heartbeats()
    heard.announce_leaving("host-a", 0)
    asked = snapshot([host("host-a"), host("host-b")], [])
    assert [each.usable for each in heard.freshen(asked, T0, 4).hosts] == [False, True]
    assert [each.usable for each in heard.freshen(asked, T0, 5).hosts] == [True, True]


def test_when_a_replica_was_last_alive_is_known_until_it_has_ended() -> None:
    heard = Heartbeats()
    running = replica("ep_1")
    heard.hear(heartbeat(reports=(report(running, 1, "ready"),)), 10)
    heard.hear(heartbeat(reports=(report(running, 2, "failed"),)), 12)
    heard.hear(heartbeat(), 14)  # as a provisioner that just started may know nothing yet
    assert heard.freshen(snapshot([host()], [], [running]), at(20), 15).alive_at == {running.replica_id: at(15)}
    heard.freshen(snapshot([host()], []), at(20), 15)
    assert heard.last_alive_at(running, at(20), 15) is None


def test_what_was_never_heard_alive_ran_until_its_host_was_seen_before_this_process_began() -> None:
    heard = Heartbeats()
    assert heard.last_alive_at(replica("ep_1"), at(20), 0) is None
    heard.remember([host(last_seen_at=at(3))])
    heard.remember([host(last_seen_at=at(9))])
    heard.hear(heartbeat(reports=(report(replica("ep_1"), 2, "failed"),)), 10)
    assert heard.last_alive_at(replica("ep_1"), at(20), 11) == at(3)


def test_a_replica_is_unmentioned_only_in_a_heartbeat_that_knew_it_should_stop() -> None:
    heard = Heartbeats()
    told_to_stop = replica("ep_1", unassign_at=at(10), unassigned_at=at(10))
    asked = snapshot([host()], [], [told_to_stop, replica("ep_2")])
    assert heard.freshen(asked, at(20), 20).unmentioned == frozenset()
    heard.hear(heartbeat(), 12)
    assert heard.freshen(asked, at(20), 20).unmentioned == frozenset()
    heard.hear(heartbeat(reports=(report(told_to_stop, 1, "ready"),)), 14)
    assert heard.freshen(asked, at(20), 20).unmentioned == frozenset()
    heard.hear(heartbeat(), 16)
    assert heard.freshen(asked, at(20), 20).unmentioned == {told_to_stop.replica_id}


def test_hearing_starts_over_after_every_gap() -> None:
    hearing = Hearing(0)
    for second in range(1, 5):
        hearing.tick(second, connected=True)
    assert hearing.since_s(4) == 0
    hearing.tick(5, connected=False)
    hearing.tick(6, connected=True)
    assert hearing.since_s(6.5) == 5
    assert hearing.since_s(20) == 20  # nothing ran for so long: nobody was heard either
    hearing.tick(20, connected=True)
    assert hearing.since_s(21) == 20
    assert timedelta(seconds=hearing.since_s(21)) == timedelta(seconds=20)
