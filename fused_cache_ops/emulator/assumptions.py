"""What Fused's documentation leaves open, as switches: code that is right must be right in every position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Assumptions:
    """How the emulator behaves where the service's behavior is not documented. Change an attribute at any time.

    Attributes:
        fresh_headers: the headers of a result that was computed.
        memory_headers: the headers of a result from the memory tier.
        storage_headers: the headers of a result from object storage.
        shared_headers: further headers of a shared run, such as ``Cache-Control`` for browsers and CDNs. By default, pages of
            every origin may read it.
        refusal_status: the status for a shared run without access, or with a session token that is no longer valid.
        public_mint_status: the status for a session token of a public canvas, which needs none.
        mixed_instances: whether invalidating on one instance reaches the results of every instance.
        memory_is_invalidated: whether invalidating reaches the memory tier.
        late_results_are_stored: whether a run that began before an invalidation stores its result after it.
        service_token_is_user: whether ``/user/self`` answers a service token with 200 and no email. Otherwise it is 403.
    """

    fresh_headers: Mapping[str, str] = field(default_factory=lambda: {"x-cache": "Miss"})
    memory_headers: Mapping[str, str] = field(default_factory=lambda: {"x-cache": "Hit"})
    storage_headers: Mapping[str, str] = field(default_factory=lambda: {"x-cache": "Miss", "x-fused-cached": "true"})
    shared_headers: Mapping[str, str] = field(default_factory=lambda: {"access-control-allow-origin": "*"})
    refusal_status: int = 403
    public_mint_status: int = 400
    mixed_instances: bool = False
    memory_is_invalidated: bool = True
    late_results_are_stored: bool = True
    service_token_is_user: bool = False
