"""The HTTPRoute of a rollout: our own by server-side apply, somebody's by a guarded patch."""

from dataclasses import dataclass
from typing import Any

from moe_serve.kubernetes.api import Api, ClusterError, Patch
from moe_serve.kubernetes.body import (
    MANAGER,
    dedicated,
    route_body,
    shared,
    weights_patch,
)
from moe_serve.rollout.observation import RouteAbsent, RouteForeign, RouteSeen
from moe_serve.rollout.plan import Owner, RolloutPlan
from moe_serve.rollout.weights import Weights


@dataclass(slots=True)
class Route:
    """One route, which is only ever written as it was read last."""

    api: Api
    plan: RolloutPlan
    _read: dict[str, Any] | None = None

    def read(self, rollout: str) -> RouteSeen | RouteAbsent | RouteForeign:
        """The route as it is now; `rollout` tells our stamps from an earlier rollout's.

        Raises:
            ClusterError: it cannot be read.
        """
        ours = self.plan.route.owner is Owner.DEDICATED
        try:
            self._read = self.api.get(self._path)
        except ClusterError as error:
            self._read = None
            if error.status != 404:
                raise
            # Without the definitions every name is a 404, with another text.
            if f'"{self.plan.route.name}" not found' not in str(error):
                raise ClusterError(
                    "this API server knows no HTTPRoute (gateway.networking.k8s.io/v1): install "
                    "the Gateway API's definitions",
                    status=404,
                ) from error
            if ours:
                return RouteAbsent()
            return RouteForeign(detail=f"there is no HTTPRoute {self.plan.route.name}")
        return dedicated(self.plan, self._read, rollout) if ours else shared(self.plan, self._read)

    def create(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Make the dedicated route.

        Raises:
            ClusterError: it could not be made; 409 if somebody was faster.
        """
        body = route_body(self.plan, weights, rollout=rollout, stamp=stamp)
        self.api.create(self._parent, body, fieldManager=MANAGER)

    def set_weights(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Write the weights over what was read last, and nothing newer.

        Raises:
            ClusterError: it could not be written; 409 (or 422) if it changed since.
        """
        assert self._read is not None, "a route is read before it is written"
        if self.plan.route.owner is Owner.SHARED:
            self.api.patch(
                self._path, weights_patch(self.plan, self._read, weights), Patch.JSON,
                fieldManager=MANAGER,
            )  # fmt: skip
            return
        body = route_body(self.plan, weights, rollout=rollout, stamp=stamp)
        body["metadata"]["resourceVersion"] = self._read["metadata"]["resourceVersion"]
        # `force` takes over fields that somebody else wrote; the decision to do so was made on
        # what was read, and the resource version holds it to that.
        self.api.patch(self._path, body, Patch.APPLY, fieldManager=MANAGER, force="true")

    @property
    def _parent(self) -> str:
        return f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.api.namespace}/httproutes"

    @property
    def _path(self) -> str:
        return f"{self._parent}/{self.plan.route.name}"
