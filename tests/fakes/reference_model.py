"""The connect loop of an older school, written down naively: flags, marks and one status for everything.

It knows nothing of mailq's ledger, plan or sessions. A recipient that is left over at the end gets the one
status of whatever happened last; whether somebody else can still be asked is a flag that must be right at every
moment. What the two have in common is what the rows say.

Source: smtp-delivery C-10 to C-65, D-04, D-10, T-01 to T-31, S-04, S-10 to S-30, X-30 to X-53, P-30.
"""

from dataclasses import dataclass, field

from tests.fakes.enumerated_cases import Behaviour, Case, Place

Fate = tuple[str, str, str]
"""Word, status, and the host that a session was held with or ``none``."""


@dataclass(slots=True)
class Account:
    """What became of a request: one fate a recipient, whether the destination looks sick, who was called."""

    fates: dict[int, Fate] = field(default_factory=dict)
    sick: bool = False
    calls: list[str] = field(default_factory=list)


class _HungUpError(Exception):
    """The server is gone."""


def play(case: Case) -> Account:
    """Return what the flag-based loop makes of *case*."""
    return _Loop(case).run()


def _status_of(reply: str) -> str:
    """Source: S-04."""
    first = reply[0]
    if first not in "245":
        return "5.5.0"
    words = reply.split()
    if len(words) > 1 and words[1].count(".") == 2 and words[1].startswith(first):
        return words[1]
    return f"{first}.0.0"


def _soft(status: str) -> str:
    return "4" + status[1:]


def _heard(reply: str) -> str:
    if reply == "!":
        raise _HungUpError
    return reply


class _Loop:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.account = Account()
        self.left = list(range(case.recipients))
        self.marks: dict[int, str] = {}
        self.why = ""
        self.session = "none"
        self.best_mx = False
        self.final_nexthop = self.final_server = self.complete_session = False

    def run(self) -> Account:
        """Source: C-06, C-12 to C-14, C-60 to C-65."""
        sites = self.case.places + self.case.fallback
        last = 0
        for last, place in enumerate(sites):
            if place is sites[-1] and last == len(sites) - 1:
                self.final_nexthop = True
            self._one_site(place)
            if self.final_nexthop or not self.left:
                break
        if self.left:
            if not self.why:
                self.why = "4.3.0"
            elif self.why[0] == "5" and (last >= len(self.case.places) or self.case.relayhost):
                self.why = "4.3.5"
            self.final_server = True
            self._site_fails(self.why)
            self._sweep()
        assert not self.left
        return self.account

    def _look_up(self, place: Place) -> list[tuple[str, int, Behaviour]]:
        """Source: A-30 to A-37, C-23, C-24."""
        self.why = place.lookup_failure
        if self.why:
            return []
        found = list(place.servers)
        own = place.own_preference
        if own is not None:
            self.final_nexthop = True
            best_found = min([own, *(preference for _, preference, _ in found)])
            found = [server for server in found if server[1] < own]
            if not found:
                dead = place.dead_preference
                self.why = "4.4.4" if dead is not None and dead < best_found else "5.4.6"
        return found

    def _one_site(self, place: Place) -> None:
        """Source: C-30 to C-47."""
        servers = self._look_up(place)
        addresses = sessions = 0
        plain = False
        at = 0 if servers else None
        while at is not None and self.left:
            host, preference, behaviour = servers[at]
            following = at + 1 if at + 1 < len(servers) else None
            addresses += 1
            if addresses == self.case.address_limit:
                following = None
            tls, plain = not plain, False
            self.account.calls.append(host)
            if behaviour.refuses:
                self.why = "4.4.1"
                at = following
                continue
            self.session, self.best_mx = host, preference == servers[0][1]
            self._mark_final(following)
            if not self._introduce(behaviour, tls=tls):
                if self._retry_plain(behaviour, tls=tls):
                    plain, following = True, at
                    addresses -= 1
            else:
                sessions += 1
                if sessions == self.case.session_limit:
                    following = None
                self._mark_final(following)
                self._transact(behaviour)
            self._sweep()
            self.session = "none"
            at = following

    def _mark_final(self, following: int | None) -> None:
        """Source: C-41."""
        if self.final_nexthop and following is None:
            self.final_server = True

    def _retry_plain(self, behaviour: Behaviour, *, tls: bool) -> bool:
        """Source: P-30."""
        return tls and behaviour.bad_tls and self.case.waited_before

    def _introduce(self, behaviour: Behaviour, *, tls: bool) -> bool:
        """Source: S-10 to S-30, T-27, P-30."""
        try:
            greeting = _heard(behaviour.greeting)
            if greeting[0] != "2":
                status = _status_of(greeting)
                softened = greeting[0] == "5" and self.case.skip_5xx_greeting
                return self._site_fails(_soft(status) if softened else status)
            hello = _heard(behaviour.ehlo)
            if hello[0] != "2":
                hello = hello if hello.startswith("421") else _heard(behaviour.helo)
                return hello[0] == "2" or self._site_fails(_status_of(hello))
        except _HungUpError:
            return self._site_fails("4.4.2")
        if behaviour.own_name:
            return self._site_fails("5.4.6" if self.best_mx else "4.4.6")
        if tls and behaviour.bad_tls:
            if self._retry_plain(behaviour, tls=tls):
                self.final_server = False
            self._everybody_fails("4.7.5")
            return False
        return True

    def _transact(self, behaviour: Behaviour) -> None:
        """Source: X-14, X-30 to X-53, T-26."""
        try:
            self._say_all(behaviour)
        except _HungUpError:
            self._site_fails("4.4.2")
        else:
            self.complete_session = True

    def _say_all(self, behaviour: Behaviour) -> None:
        mail = _heard(behaviour.mail)
        if mail[0] != "2":
            self._everybody_fails(_status_of(mail))
            if not behaviour.pipelining:
                return
        accepted = self._offer(behaviour, ignore=mail[0] != "2")
        if not accepted and not behaviour.pipelining:
            return
        data = _heard(behaviour.data)
        if data[0] != "3":
            if accepted:
                self._everybody_fails("5.5.0" if data[0] == "2" else _status_of(data))
            return
        dot = _heard(behaviour.dot)
        if not accepted:
            return
        if dot[0] != "2":
            self._everybody_fails(_status_of(dot))
            return
        for recipient in accepted:
            self._finish(recipient, "sent", _status_of(dot))

    def _offer(self, behaviour: Behaviour, *, ignore: bool) -> list[int]:
        """Source: X-31, X-33, X-34."""
        accepted = []
        for recipient in list(self.left):
            rcpt = _heard(behaviour.rcpts[recipient])
            if ignore:
                continue
            if rcpt[0] == "2":
                accepted.append(recipient)
            else:
                self._fails(recipient, _status_of(rcpt))
        return accepted

    def _unmarked(self) -> list[int]:
        return [recipient for recipient in self.left if recipient not in self.marks]

    def _site_fails(self, status: str) -> bool:
        """Source: T-20 to T-22."""
        deferred = self._everybody_fails(status)
        if deferred and not self.complete_session:
            self.account.sick = True
        return False

    def _everybody_fails(self, status: str) -> bool:
        """Source: T-23. Tells whether somebody was deferred."""
        self.why = status
        deferred = [self._fails(recipient, status) for recipient in self._unmarked()]
        return any(deferred)

    def _fails(self, recipient: int, status: str) -> bool:
        """Source: T-01 to T-05, T-25."""
        self.why = status
        if status[0] == "5" and not self.case.soft_bounce:
            self._finish(recipient, "bounced", status)
        elif self.final_server:
            self._finish(recipient, "deferred", _soft(status))
            return True
        else:
            self.marks[recipient] = "KEEP"
        return False

    def _finish(self, recipient: int, word: str, status: str) -> None:
        assert recipient not in self.marks
        assert recipient not in self.account.fates
        self.account.fates[recipient] = (word, status, self.session)
        self.marks[recipient] = "DROP"

    def _sweep(self) -> None:
        """Source: D-11, T-06."""
        assert sorted(self.marks) == sorted(self.left)
        self.left = [recipient for recipient in self.left if self.marks[recipient] == "KEEP"]
        self.marks.clear()
