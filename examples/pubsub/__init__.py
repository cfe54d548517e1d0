"""The case study: a peer-to-peer publish-subscribe network, each host a machine.

``am sim`` runs it; docs/case-study.md tells how it is built.
"""
