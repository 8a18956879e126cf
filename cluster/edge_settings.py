"""The part of a cluster's settings that the HTTP edge knows."""

from easel.cluster.config import ClusterConfig
from easel.cluster.gateway.settings import GatewaySettings
from easel.cluster.gateway.tenancy import tenants_of


def edge_settings(config: ClusterConfig) -> GatewaySettings:
    """Who may ask, and how large a request may be."""
    return GatewaySettings(
        api_keys=config.api_keys,
        tenants=tenants_of(config.tenants),
        deadline_ms=config.deadline_ms,
        stream_buffer=config.stream_buffer,
        max_body_bytes=config.limits.max_body_bytes,
        max_depth=config.limits.max_depth,
        body_seconds=config.limits.body_seconds,
        max_header_bytes=config.limits.max_header_bytes,
        max_choices=config.limits.max_choices,
    )
