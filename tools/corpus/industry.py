"""One industry's vocabulary: the phrases from which the synthetic corpus is written.

All phrases are Spanish and start in lower case, except proper names and `facts`, which are whole sentences.
`{n:LOW-HIGH}` inside a phrase stands for a random integer; there are no other braces.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Industry:
    """See the comment of each field; the counts are what the lexicons hold."""

    name: str  # "laboratorio de análisis clínicos", no article
    companies: tuple[str, ...]  # 6 invented names
    actors: tuple[str, ...]  # 10 roles with article, singular: "el jefe de logística"
    objects: tuple[str, ...]  # 14 things managed, with article, singular: "la orden de compra"
    plurals: tuple[str, ...]  # 12 groups with article: "las muestras urgentes"
    systems: tuple[str, ...]  # 8 systems or devices: "SAP ECC", "la API de correos"
    actions: tuple[str, ...]  # 24 infinitive phrases: "registrar la rotura de un envase con foto"
    facts: tuple[str, ...]  # 12 full sentences: "El almacén mueve {n:200-4000} palés al día."
    problems: tuple[str, ...]  # 12 clauses: "los avisos llegan por teléfono"
    norms: tuple[str, ...]  # 5 laws or standards: "el RGPD", "ISO 22000"
    qualities: tuple[str, ...]  # 16 requirement phrases of any kind: "que el listado cargue en menos de 3 s"
    metrics: tuple[str, ...]  # 8 noun phrases: "tiempo medio de recogida"
    risks: tuple[str, ...]  # 8 clauses: "que los repartidores no tengan cobertura"
