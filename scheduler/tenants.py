"""What each tenant may have under way, and what it was served.

Shares follow virtual token counters (Sheng et al., "Fairness in Serving Large Language Models",
OSDI 2024): the tenant that was served the fewest tokens for its weight goes first, and a tenant
that comes back after a pause is lifted to the others' level, so that idling earns no credit.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from easel.scheduler.errors import TenantLimit

ACCOUNTS_KEPT = 1024  # of tenants without limits of their own that have nothing under way
CHARGES_KEPT = 4096  # of requests that lost their replica and have not come back
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may have. None: as much as there is."""

    weight: float = 1.0  # its share, relative to the others'
    max_requests: int | None = None  # waiting or running at once; more are refused
    max_canvases: int | None = None  # running at once; more wait
    tokens_per_minute: int | None = None  # prompt and output; more are refused


@dataclass(slots=True)
class Account:
    """One tenant's books; `served` is its virtual counter."""

    limits: TenantLimits
    bucket: float = 0.0  # tokens that may be admitted now; negative: a debt
    filled_at: float | None = None
    served: float = 0.0  # tokens / weight
    requests: int = 0
    canvases: int = 0

    @property
    def may_run(self) -> bool:
        """Whether one more request may be sent to a replica."""
        return self.limits.max_canvases is None or self.canvases < self.limits.max_canvases

    def fill(self, now: float) -> None:
        rate = self.limits.tokens_per_minute
        if rate is not None:
            gained = rate if self.filled_at is None else rate * max(0.0, now - self.filled_at) / MINUTE
            self.bucket = min(float(rate), self.bucket + gained)
        self.filled_at = now if self.filled_at is None else max(now, self.filled_at)


@dataclass(slots=True)
class _Charge:
    """What a request was charged, until what it really took is known."""

    account: Account
    prompt_tokens: int
    output_tokens: int
    paid: bool  # its tenant's counter has been charged
    counted: bool = False  # among the tenant's requests
    running: bool = False  # among the tenant's canvases


class TenantLedger:
    """Every tenant's account. All operations are O(1)."""

    def __init__(
        self, limits: Mapping[str, TenantLimits] | None = None, default: TenantLimits | None = None
    ) -> None:
        self._limits = dict(limits) if limits is not None else {}
        self._default = default if default is not None else TenantLimits()
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._charges: dict[str, _Charge] = {}
        self._away: OrderedDict[str, _Charge] = OrderedDict()  # neither waiting nor running now

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, tenant: str) -> Account:
        """The tenant's account; one that is not known yet is opened."""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(self._limits.get(tenant, self._default))
            self._trim_accounts()
        return account

    def lift(self, tenant: str, level: float) -> None:
        """The tenant comes back from a pause: what it was not served meanwhile is forgone."""
        account = self.account(tenant)
        account.served = max(account.served, level)

    def check(self, tenant: str, tokens: int, now: float, finish_seconds: float) -> None:
        """Raises TenantLimit if the tenant may not have one more request of that many tokens.

        `finish_seconds` is when one of its requests is predicted to end. A request larger than
        a minute's tokens needs a full bucket, and leaves it in debt.
        """
        account = self.account(tenant)
        limits = account.limits
        if limits.max_requests is not None and account.requests >= limits.max_requests:
            raise TenantLimit(tenant, "requests at once", limits.max_requests, finish_seconds)
        account.fill(now)
        rate = limits.tokens_per_minute
        if rate is not None and account.bucket < min(tokens, rate):
            wait = (min(tokens, rate) - account.bucket) * MINUTE / rate
            raise TenantLimit(tenant, "tokens a minute", rate, wait)

    def enter(self, request_id: str, tenant: str, prompt_tokens: int, output_tokens: int, now: float) -> None:
        """A request begins to wait; its tokens leave the tenant's bucket."""
        account = self.account(tenant)
        account.fill(now)
        account.bucket -= prompt_tokens + output_tokens
        self._charges[request_id] = _Charge(account, prompt_tokens, output_tokens, paid=False)
        self._count(self._charges[request_id])

    def enter_again(self, request_id: str, tenant: str) -> None:
        """A request that has run before begins to wait; it is not charged once more."""
        charge = self._charges.get(request_id) or self._away.pop(request_id, None)
        if charge is None:
            charge = _Charge(self.account(tenant), 0, 0, paid=True)
        self._charges[request_id] = charge
        self._count(charge)

    def start(self, request_id: str) -> None:
        """The request was sent to a replica; its tenant's counter is charged for all it may take."""
        charge = self._charges[request_id]
        charge.running = True
        charge.account.canvases += 1
        if not charge.paid:
            charge.paid = True
            self._serve(charge.account, charge.prompt_tokens + charge.output_tokens)

    def leave(self, request_id: str) -> None:
        """The request neither waits nor runs now; it may come back. Unknown ids are ignored."""
        charge = self._charges.pop(request_id, None)
        if charge is None:
            return
        self._release(charge)
        self._away[request_id] = charge
        if len(self._away) > CHARGES_KEPT:
            self._away.popitem(last=False)

    def settle(self, request_id: str, output_tokens: int | None) -> None:
        """The request is over. What it did not take of what it was charged is given back."""
        charge = self._charges.pop(request_id, None) or self._away.pop(request_id, None)
        if charge is None:
            return
        self._release(charge)
        if charge.paid:
            unused = 0 if output_tokens is None else charge.output_tokens - output_tokens
            self._serve(charge.account, -max(0, unused))
        else:
            unused = charge.prompt_tokens + charge.output_tokens
        rate = charge.account.limits.tokens_per_minute
        if rate is not None:
            charge.account.bucket = min(float(rate), charge.account.bucket + max(0, unused))

    def _serve(self, account: Account, tokens: int) -> None:
        account.served += tokens / account.limits.weight

    def _count(self, charge: _Charge) -> None:
        if not charge.counted:
            charge.counted = True
            charge.account.requests += 1

    def _release(self, charge: _Charge) -> None:
        charge.account.requests -= charge.counted
        charge.account.canvases -= charge.running
        charge.counted = charge.running = False

    def _trim_accounts(self) -> None:
        if len(self._accounts) <= 2 * ACCOUNTS_KEPT + len(self._limits):
            return
        for tenant, account in list(self._accounts.items())[:ACCOUNTS_KEPT]:
            if tenant not in self._limits and account.requests == 0:
                del self._accounts[tenant]
