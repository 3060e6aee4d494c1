"""Prints requests that the providers' own Python packages have signed, one JSON object a line.

Each: the provider, how (`signs`: the package made the signature; `checks`: the package only verifies, so the signature is made
here and the package has accepted it), what a route is configured with, the request, and the body with one signed byte changed.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
import urllib.parse
import uuid

HOST = "https://hooks.example.com"
NOW = int(time.time())
SECRET = "a-secret-of-the-test-0123456789abcdef"
STANDARD = "whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()
HEX = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"


def emit(provider, how, config, headers, body, change, target=None):
    if isinstance(body, str):
        body = body.encode()
    old, new = (text.encode() for text in change)
    assert body.count(old) >= 1, (provider, "nothing to change")
    line = {
        "provider": provider,
        "name": how,
        "config": config,
        "request": {
            "method": "POST",
            "url": HOST + (target or "/in/" + provider),
            "headers": [[name, str(value)] for name, value in headers.items()],
            "body_base64": base64.b64encode(body).decode(),
        },
        "tampered_base64": base64.b64encode(body.replace(old, new, 1)).decode(),
        "now": NOW,
        "expect": "accept",
    }
    print(json.dumps(line))


def event(**more):
    return json.dumps({"id": str(uuid.uuid4()), "type": "test", "amount": 100, **more})


CHANGE = ('"amount": 100', '"amount": 900')
JSON = {"Content-Type": "application/json"}


def stripe():
    from stripe import WebhookSignature

    body = event(object="event")
    signature = WebhookSignature._compute_signature(f"{NOW}.{body}", SECRET)
    header = f"t={NOW},v1={signature}"
    WebhookSignature.verify_header(body, header, SECRET)
    emit("stripe", "signs", {"secrets": [SECRET]}, {**JSON, "Stripe-Signature": header}, body, CHANGE)


def standard_webhooks():
    import datetime

    from standardwebhooks import Webhook

    body, message = event(), f"msg_{uuid.uuid4()}"
    at = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    signature = Webhook(STANDARD).sign(message, at, body)
    headers = {**JSON, "webhook-id": message, "webhook-timestamp": NOW, "webhook-signature": signature}
    emit("standard-webhooks", "signs", {"secrets": [STANDARD]}, headers, body, CHANGE)


def svix():
    import datetime

    from svix.webhooks import Webhook

    body, message = event(), f"msg_{uuid.uuid4()}"
    at = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    signature = Webhook(STANDARD).sign(message, at, body)
    headers = {**JSON, "svix-id": message, "svix-timestamp": NOW, "svix-signature": signature}
    emit("svix", "signs", {"secrets": [STANDARD]}, headers, body, CHANGE)


def slack():
    from slack_sdk.signature import SignatureVerifier

    body = event(type="event_callback", event_id=f"Ev{uuid.uuid4().hex}")
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=str(NOW), body=body)
    headers = {**JSON, "X-Slack-Request-Timestamp": NOW, "X-Slack-Signature": signature}
    emit("slack", "signs", {"secrets": [SECRET]}, headers, body, CHANGE)


def twilio():
    from twilio.request_validator import RequestValidator

    fields = {"MessageSid": "SM" + uuid.uuid4().hex, "From": "+14155550100", "Body": "Hello, wörld & all"}
    target = "/in/twilio?tenant=7&x=a%20b"
    signature = RequestValidator(SECRET).compute_signature(HOST + target, fields)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}
    emit("twilio", "signs", {"secrets": [SECRET]}, headers, urllib.parse.urlencode(fields), ("Hello", "Hallo"), target)


def adyen():
    from Adyen.util import generate_notification_sig, is_valid_hmac_notification

    item = {
        "amount": {"currency": "EUR", "value": 1000},
        "eventCode": "AUTHORISATION",
        "merchantAccountCode": "TestMerchant",
        "merchantReference": "order-1",
        "pspReference": uuid.uuid4().hex[:16].upper(),
        "success": "true",
    }
    item["additionalData"] = {"hmacSignature": generate_notification_sig(item, HEX).decode()}
    body = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    assert is_valid_hmac_notification(json.loads(json.dumps(body)), HEX)
    emit("adyen", "signs", {"secrets": [HEX]}, JSON, json.dumps(body), ('"value": 1000', '"value": 9000'))


def braintree():
    from braintree import BraintreeGateway, Configuration, Environment

    public = "integration_public"
    gateway = BraintreeGateway(
        Configuration(Environment.Sandbox, merchant_id="merchant", public_key=public, private_key=SECRET)
    )
    signed = gateway.webhook_testing.sample_notification("check", uuid.uuid4().hex)
    gateway.webhook_notification.parse(signed["bt_signature"], signed["bt_payload"])
    body = urllib.parse.urlencode(signed)
    start = body.index("bt_payload=") + len("bt_payload=")
    old = body[start : start + 8]
    config = {"secrets": [SECRET], "params": {"public_key": public}}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    emit("braintree", "signs", config, headers, body, ("bt_payload=" + old, "bt_payload=B" + old[1:]))


def paddle():
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature
    from paddle_billing.Notifications.Secret import Secret

    body = event(event_id=f"evt_{uuid.uuid4().hex}")
    digest = PaddleSignature.calculate_hmac(SECRET, f"{NOW}:{body}".encode())
    header = f"ts={NOW};h1={digest if isinstance(digest, str) else digest.hexdigest()}"
    assert PaddleSignature().verify(header, body, Secret(SECRET))
    emit("paddle", "signs", {"secrets": [SECRET]}, {**JSON, "Paddle-Signature": header}, body, CHANGE)


def pusher():
    from pusher import Pusher
    from pusher.signature import sign

    body = event(time_ms=NOW * 1000, events=[{"name": "channel_occupied", "channel": "c"}])
    signature = sign(SECRET, body)
    assert Pusher("1", "key", SECRET).validate_webhook("key", signature, body)
    headers = {**JSON, "X-Pusher-Key": "key", "X-Pusher-Signature": signature}
    emit("pusher", "signs", {"secrets": [SECRET]}, headers, body, CHANGE)


def discord():
    from nacl.encoding import HexEncoder
    from nacl.signing import SigningKey

    key = SigningKey.generate()
    body = event(type=2)
    signature = key.sign(f"{NOW}{body}".encode()).signature.hex()
    public = key.verify_key.encode(HexEncoder).decode()
    headers = {**JSON, "X-Signature-Timestamp": NOW, "X-Signature-Ed25519": signature}
    emit("discord", "signs", {"public_keys": [public]}, headers, body, CHANGE)


def sendgrid():
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from sendgrid.helpers.eventwebhook import EventWebhook

    key = ec.generate_private_key(ec.SECP256R1())
    public = base64.b64encode(
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).decode()
    body = "[" + event(sg_event_id=uuid.uuid4().hex) + "]"
    signature = base64.b64encode(key.sign(f"{NOW}{body}".encode(), ec.ECDSA(hashes.SHA256()))).decode()
    assert EventWebhook(public).verify_signature(body, signature, str(NOW))
    headers = {
        **JSON,
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": NOW,
    }
    emit("sendgrid", "checks", {"public_keys": [public]}, headers, body, CHANGE)


def gocardless():
    from gocardless_pro import webhooks

    body = json.dumps({"events": [{"id": f"EV{uuid.uuid4().hex}", "amount": 100}]})
    signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    webhooks.parse(body, SECRET, signature)
    emit("gocardless", "checks", {"secrets": [SECRET]}, {**JSON, "Webhook-Signature": signature}, body, CHANGE)


def line():
    from linebot.v3.webhook import SignatureValidator

    body = event(destination="U0", events=[])
    digest = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    assert SignatureValidator(SECRET).validate(body, signature)
    emit("line", "checks", {"secrets": [SECRET]}, {**JSON, "X-Line-Signature": signature}, body, CHANGE)


def square():
    from square.utils.webhooks_helper import verify_signature

    body, url = event(event_id=str(uuid.uuid4())), HOST + "/in/square"
    digest = hmac.new(SECRET.encode(), (url + body).encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    assert verify_signature(
        request_body=body, signature_header=signature, signature_key=SECRET, notification_url=url
    )
    headers = {**JSON, "x-square-hmacsha256-signature": signature}
    emit("square", "checks", {"secrets": [SECRET]}, headers, body, CHANGE)


for sign in (
    stripe,
    standard_webhooks,
    svix,
    slack,
    twilio,
    adyen,
    braintree,
    paddle,
    pusher,
    discord,
    sendgrid,
    gocardless,
    line,
    square,
):
    try:
        sign()
    except Exception as problem:
        sys.exit(f"{sign.__name__}: {type(problem).__name__}: {problem}")
