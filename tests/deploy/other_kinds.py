"""What we know of custom resources whose CRDs are not at hand: the fields that Easel sets, and no others.

A field that is missing here may be right all the same; one that is here was looked up in the
project's API reference: Prometheus' operator (monitoring.coreos.com/v1) and cert-manager
(cert-manager.io/v1). Values beyond their types are not checked.
"""

from collections.abc import Mapping
from typing import Any

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
TEXT_MAP = {"type": "object", "additionalProperties": TEXT}
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d|w|y))+$"}


def _object(required: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def _kind(api_version: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": {"type": "object"}}
    return _object("apiVersion kind metadata spec", **head, spec=spec)


_RULE = {
    **_object(
        "expr",
        alert=TEXT,
        record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
        expr=TEXT,
        **{"for": DURATION},
        keep_firing_for=DURATION,
        labels=TEXT_MAP,
        annotations=TEXT_MAP,
    ),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
_ISSUER_REF = _object("name", name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=TEXT)
_PRIVATE_KEY = _object(
    "",
    algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
    size={"type": "integer"},
    rotationPolicy={"enum": ["Never", "Always"]},
    encoding={"enum": ["PKCS1", "PKCS8"]},
)

OTHER_KINDS: Mapping[str, Mapping[str, Any]] = {
    "PodMonitor": _kind(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            "selector podMetricsEndpoints",
            selector=_object("", matchLabels=TEXT_MAP),
            podMetricsEndpoints={
                "type": "array",
                "items": _object("port", port=TEXT, path=TEXT, interval=DURATION, scrapeTimeout=DURATION),
            },
        ),
    ),
    "PrometheusRule": _kind(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object(
            "groups",
            groups={
                "type": "array",
                "items": _object(
                    "name rules", name=TEXT, interval=DURATION, rules={"type": "array", "items": _RULE}
                ),
            },
        ),
    ),
    "Issuer": _kind(
        "cert-manager.io/v1",
        "Issuer",
        {
            **_object("", selfSigned=_object(""), ca=_object("secretName", secretName=TEXT)),
            "minProperties": 1,
        },
    ),
    "Certificate": _kind(
        "cert-manager.io/v1",
        "Certificate",
        _object(
            "secretName issuerRef",
            isCA={"type": "boolean"},
            commonName=TEXT,
            secretName=TEXT,
            duration=DURATION,
            renewBefore=DURATION,
            dnsNames=TEXTS,
            privateKey=_PRIVATE_KEY,
            usages=TEXTS,
            issuerRef=_ISSUER_REF,
        ),
    ),
}
