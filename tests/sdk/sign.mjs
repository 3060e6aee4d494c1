// Prints requests that the providers' own Node packages have signed, one JSON object a line; see sign.py. It runs in the
// folder where the packages are installed.

import assert from "node:assert";
import { createHmac, randomUUID } from "node:crypto";

import { sign } from "@octokit/webhooks-methods";
import { encodeSignatureHeader, isValidSignature, SIGNATURE_HEADER_NAME } from "@sanity/webhook";
import { WorkOS } from "@workos-inc/node";
import razorpay from "razorpay/dist/utils/razorpay-utils.js";
import Stripe from "stripe";

const SECRET = "a-secret-of-the-test-0123456789abcdef";
const SECONDS = Math.floor(Date.now() / 1000);

const event = (more = {}) => JSON.stringify({ id: randomUUID(), type: "test", amount: 100, ...more });

function emit(provider, how, headers, body) {
  const base64 = (text) => Buffer.from(text).toString("base64");
  const tampered = body.replace('"amount":100', '"amount":900');
  assert.notEqual(body, tampered);
  const all = { "Content-Type": "application/json", ...headers };
  const request = {
    method: "POST",
    url: `https://hooks.example.com/in/${provider}`,
    headers: Object.entries(all).map(([name, value]) => [name, String(value)]),
    body_base64: base64(body),
  };
  const config = { secrets: [SECRET] };
  const line = { provider, name: how, config, request, tampered_base64: base64(tampered), now: SECONDS, expect: "accept" };
  console.log(JSON.stringify(line));
}

{
  const body = event({ zen: "Keep it logically awesome." });
  const headers = { "X-GitHub-Event": "ping", "X-GitHub-Delivery": randomUUID() };
  emit("github", "signs", { ...headers, "X-Hub-Signature-256": await sign(SECRET, body) }, body);
}
{
  const body = event();
  const header = await encodeSignatureHeader(body, SECONDS * 1000, SECRET);
  assert(await isValidSignature(body, header, SECRET));
  emit("sanity", "signs", { [SIGNATURE_HEADER_NAME]: header, "idempotency-key": randomUUID() }, body);
}
{
  const { webhooks } = new WorkOS("sk_test");
  // What it signs is its own form of the payload.
  const payload = JSON.parse(event({ event: "user.created" }));
  const body = JSON.stringify(payload);
  const time = SECONDS * 1000;
  const header = `t=${time}, v1=${await webhooks.computeSignature(time, payload, SECRET)}`;
  assert(await webhooks.verifyHeader({ payload, sigHeader: header, secret: SECRET }));
  emit("workos", "signs", { "WorkOS-Signature": header }, body);
}
{
  const body = event({ object: "event" });
  const header = new Stripe("sk_test").webhooks.generateTestHeaderString({ payload: body, secret: SECRET });
  emit("stripe", "signs", { "Stripe-Signature": header }, body);
}
{
  const body = event({ event: "payment.captured" });
  const signature = createHmac("sha256", SECRET).update(body).digest("hex");
  assert(razorpay.validateWebhookSignature(body, signature, SECRET));
  emit("razorpay", "checks", { "X-Razorpay-Signature": signature, "x-razorpay-event-id": randomUUID() }, body);
}
