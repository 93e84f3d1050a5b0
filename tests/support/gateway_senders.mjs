// Sends messages to a gateway with unmodified npm clients. Usage: node senders.mjs MLLP_PORT HTTP_URL
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const [port, url] = [Number(process.argv[2]), process.argv[3]];
const text = (id, value) =>
  `MSH|^~\\&|NPM|ICU|||20261127100000||ORU^R01|${id}|P|2.5\r` +
  `PID|||77^^^HOSP^MR\rPV1||I|ICU^3^2\rOBX|1|NM|8867-4^HR^LN||${value}|/min|||||F|||20261127095900\r`;
const say = (name, code, id) => console.log(`${name}: ${code} ${id}`);

async function simpleHl7() {
  const hl7 = require("simple-hl7");
  const client = hl7.Server.createTcpClient("127.0.0.1", port);
  const message = new hl7.Parser().parse(text("simple1", 71));
  const answer = await new Promise((resolve, reject) =>
    client.send(message, (error, ack) => (error ? reject(error) : resolve(ack))));
  const msa = answer.getSegment("MSA");
  say("simple-hl7", msa.getField(1), msa.getField(2));
  client.close();
}

async function nodeHl7Client() {
  const { Client, Message } = await import("node-hl7-client");
  const client = new Client({ host: "127.0.0.1", version: "2.5" });
  const answer = await new Promise((resolve, reject) => {
    const outbound = client.createConnection({ port }, (response) => resolve(response.getMessage()));
    outbound.on("error", reject);
    outbound.sendMessage(new Message({ text: text("nodehl7", 72) }));
  });
  say("node-hl7-client", answer.get("MSA.1").toString(), answer.get("MSA.2").toString());
  await client.closeAll?.();
}

async function medplum() {
  const { Hl7Client } = await import("@medplum/hl7");
  const { Hl7Message } = await import("@medplum/core");
  const client = new Hl7Client({ host: "127.0.0.1", port });
  const answer = await client.sendAndWait(Hl7Message.parse(text("medplum", 73)));
  const msa = answer.getSegment("MSA");
  say("@medplum/hl7", msa.getComponent(1, 1), msa.getComponent(2, 1));
  await client.close();
}

async function fhirKit() {
  const { Client } = await import("fhir-kit-client");
  const client = new Client({ baseUrl: `${url}/fhir` });
  const metadata = await client.capabilityStatement();
  const body = {
    resourceType: "Bundle", type: "transaction",
    entry: [
      { fullUrl: "urn:uuid:p", resource: { resourceType: "Patient", id: "kit", birthDate: "1960-02-03" },
        request: { method: "PUT", url: "Patient/kit" } },
      { resource: { resourceType: "Observation", id: "kit1", status: "final",
          code: { coding: [{ system: "http://loinc.org", code: "8867-4" }] },
          subject: { reference: "urn:uuid:p" }, effectiveDateTime: "2026-11-27T09:00:00Z",
          valueQuantity: { value: 74, unit: "/min", code: "/min", system: "http://unitsofmeasure.org" } },
        request: { method: "PUT", url: "Observation/kit1" } }],
  };
  for (const turn of [1, 2]) {
    const answer = await client.transaction({ body });
    say(`fhir-kit-client, Bundle ${turn}`, answer.type, answer.entry.map((e) => e.response.status).join());
  }
  const created = await client.create({ resourceType: "Observation", body: { ...body.entry[1].resource, id: undefined,
    subject: { reference: "Patient/kit" }, valueQuantity: { value: 75, unit: "/min" }, effectiveDateTime: "2026-11-27T09:05:00Z" } });
  say("fhir-kit-client, create", created.resourceType, Boolean(created.id));
  say("fhir-kit-client, metadata", metadata.resourceType, metadata.fhirVersion);
}

for (const send of [simpleHl7, nodeHl7Client, medplum, fhirKit]) {
  try { await send(); } catch (error) { console.log(`${send.name}: FAILED ${error?.stack ?? error}`); }
}
process.exit(0);
