#!/usr/bin/env python3
"""sign.py KEY IMAGE...: signs images and the statements beside them with a private key
(PEM, P-256), as "cosign sign-blob" and "cosign attest-blob" do without a log (Sigstore
bundle v0.3, DSSE v1). For tests: where cosign is at hand, take that. Needs openssl."""
import base64, hashlib, json, subprocess, sys

KEY, IMAGES = sys.argv[1], sys.argv[2:]
TYPE = "application/vnd.in-toto+json"


def openssl(*args, data=b""):
    return subprocess.run(["openssl", *args], input=data, capture_output=True, check=True).stdout


def b64(b):
    return base64.b64encode(b).decode()


def sign(data):
    return b64(openssl("dgst", "-sha256", "-sign", KEY, data=data))


def bundle(path, **what):
    der = openssl("pkey", "-in", KEY, "-pubout", "-outform", "DER")
    hint = b64(hashlib.sha256(der).digest())
    b = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}},
        **what,
    }
    with open(path, "w") as f:
        json.dump(b, f)


for image in IMAGES:
    content = open(image, "rb").read()
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(content).digest())}
    bundle(image + ".sigstore.json", messageSignature={"messageDigest": digest, "signature": sign(content)})
    statement = open(image + ".provenance.json", "rb").read()
    pae = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(statement), statement)
    envelope = {"payload": b64(statement), "payloadType": TYPE, "signatures": [{"sig": sign(pae)}]}
    bundle(image + ".provenance.sigstore.json", dsseEnvelope=envelope)
