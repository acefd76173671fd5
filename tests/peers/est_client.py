"""An EST client: `est_client.py KIND ADDRESS:PORT ROLE/NAME SECRET` fetches the CAs, enrols by the
token's secret, renews, and fetches the CRL. It prints a line for each, and fails loudly.

KIND says whose requests are sent, octet by octet:

- `libest` (network gear): TLS 1.2 at most, no ALPN, an RSA key of 2048 bits, a first request without
  credentials, and headers that it compares with the spelling of the RFCs, case and all.
- `python`: what Python's http.client and cryptography send, with a key on P-256.
"""

import base64
import http.client
import socket
import ssl
import sys
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID, NameOID

EST = "/.well-known/est/"
SERVER = "ca.ca.plant1.example"


def context(cas, own):
    """TLS that trusts `cas` and shows `own`: a certificate and its key."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cas:
        tls.load_verify_locations(cadata="".join(pem(ca) for ca in cas))
    else:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if own:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            certificate, key = own
            file.write(pem(certificate))
            file.write(key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode())
            file.flush()
            tls.load_cert_chain(file.name)
    return tls


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Libest:
    """Its requests as est_client.c builds them; its reading of answers as est_client_http.c does."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def key(self):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def ask(self, path, cas=None, own=None, body=None, login=None):
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\n"
        head += "User-Agent: Cisco EST client 1.0\r\n"
        head += "Connection: close\r\n"
        head += f"Host: {self.host}:{self.port}\r\n"
        head += "Accept: */*\r\n"
        if body:
            head += "Content-Type: application/pkcs10\r\n"
            head += f"Content-Length: {len(body)}\r\n"
        # At first without; libest asks once more when it is told to.
        status, headers, answer = self.exchange(head + "\r\n", body, cas, own)
        if status == 401 and login:
            wanted = headers["WWW-Authenticate"]
            assert wanted.startswith("Basic realm=\""), wanted
            basic = base64.b64encode(login.encode()).decode()
            head += f"Authorization: Basic {basic}\r\n"
            status, headers, answer = self.exchange(head + "\r\n", body, cas, own)
        assert status == 200, (status, answer)
        return headers, answer

    def exchange(self, head, body, cas, own):
        tls = context(cas, own)
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection((self.host, self.port), timeout=20) as plain:
            with tls.wrap_socket(plain, server_hostname=SERVER) as stream:
                assert stream.version() == "TLSv1.2" and stream.selected_alpn_protocol() is None
                stream.sendall(head.encode())
                if body:
                    stream.sendall(body)
                text = b""
                while piece := stream.recv(4096):
                    text += piece
        head, body = text.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines
        # A dict of the names as they came: another case is another name.
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert int(headers["Content-Length"]) == len(body), headers
        return int(lines[0].split()[1]), headers, body


class Python:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def key(self):
        return ec.generate_private_key(ec.SECP256R1())

    def ask(self, path, cas=None, own=None, body=None, login=None):
        tls = context(cas, own)
        connection = http.client.HTTPSConnection(SERVER, self.port, context=tls, timeout=20)
        # The name is not in any DNS.
        plain = socket.create_connection((self.host, self.port), timeout=20)
        connection.sock = tls.wrap_socket(plain, server_hostname=SERVER)
        headers = {"Content-Type": "application/pkcs10"} if body else {}
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, (response.status, answer)
        return dict(response.getheaders()), answer


def certificates(headers, answer):
    """Of a certs-only message. They are a SET, sorted by their octets: the order says nothing."""
    kind = headers["Content-Type"]
    assert kind == "application/pkcs7-mime; smime-type=certs-only", kind
    assert headers["Content-Transfer-Encoding"] == "base64", headers
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer))


def public(of):
    return of.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def main(kind, address, identity, secret):
    host, port = address.rsplit(":", 1)
    client = {"libest": Libest, "python": Python}[kind](host, int(port))
    cas = certificates(*client.ask(EST + "cacerts"))
    [root] = [ca for ca in cas if ca.issuer == ca.subject]
    [issuing] = [ca for ca in cas if ca.issuer == root.subject and ca != root]
    issuing.verify_directly_issued_by(root)
    print("cacerts", len(cas))

    own = None
    for operation in ["simpleenroll", "simplereenroll", "simplereenroll"]:
        key = client.key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        # As a client that proves possession by the TLS connection would.
        request = request.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"tls-unique")
        request = request.sign(key, hashes.SHA256())
        body = base64.encodebytes(request.public_bytes(serialization.Encoding.DER))
        login = f"{identity}:{secret}" if own is None else None
        found = certificates(*client.ask(EST + operation, cas, own, body, login))
        [leaf] = [certificate for certificate in found if public(certificate) == public(key)]
        leaf.verify_directly_issued_by(issuing)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [uri] = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uri == f"spiffe://plant1.example/{identity}", uri
        own = leaf, key
        print(operation, f"{leaf.serial_number:x}")

    [path] = [
        name for name in client.ask("/crl/", cas)[1].decode().split() if "issuing" in name
    ]
    crl = x509.load_der_x509_crl(client.ask("/crl/" + path, cas)[1])
    assert crl.is_signature_valid(issuing.public_key())
    print("crl", len(crl))


main(*sys.argv[1:])
