"""A certificate of localhost and its key, for tests alone: nobody else trusts it."""

from __future__ import annotations

from typing import Final

__all__ = ["CERTIFICATE"]

# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 \
#   -subj "/CN=asyncmachine tests" -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"
CERTIFICATE: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgK2R12sKK570giF9V
icQjJSdZvmVNjqINn97Hp6lVImihRANCAASLmKwEoIyDnUzXps4v1tUNzS1BopRd
Kaw4JtqdtV0/OInMXsEsY60j+Yozwzir60aKa+MgYMztxG57l6M9IIi8
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBrDCCAVOgAwIBAgIUNCBOo1td6MAIce8Jpzrbm/FeYUcwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSYXN5bmNtYWNoaW5lIHRlc3RzMCAXDTI2MTEyNDEyMDIyOFoY
DzIxMjYxMDMxMTIwMjI4WjAdMRswGQYDVQQDDBJhc3luY21hY2hpbmUgdGVzdHMw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASLmKwEoIyDnUzXps4v1tUNzS1BopRd
Kaw4JtqdtV0/OInMXsEsY60j+Yozwzir60aKa+MgYMztxG57l6M9IIi8o28wbTAd
BgNVHQ4EFgQUSMS7gCRBIMRXd7ng8/kXdVrRfJIwHwYDVR0jBBgwFoAUSMS7gCRB
IMRXd7ng8/kXdVrRfJIwDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2Nh
bGhvc3SHBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIgfkJ159RrzHC/N8d2hRSa8OCt
YSFRXnRXfV2dbw64GX0CIFnj/APxUIxrqefjMdEWlRNncExz6oEeSwVNxk69nE2n
-----END CERTIFICATE-----
"""
