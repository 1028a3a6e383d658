// Generates the TypeScript types of the JSON on the wire, src/wire/*.ts, from the schemas of the
// services' OpenAPI documents. Fails if the files are out of date: `npm run generate` updates them.

import { readFileSync } from "node:fs";
import openapiTS, { type OpenAPI3, astToString } from "openapi-typescript";
import { expect, it } from "vitest";

it.each(["ingest-api", "sse-gateway"])("the types of %s match its OpenAPI document", async (service) => {
  const path = `docs/openapi/${service}.json`;
  const document = JSON.parse(readFileSync(new URL(`../../../../${path}`, import.meta.url), "utf8")) as OpenAPI3;
  // The page needs the schemas, not the types of every request and response.
  const schemas = { ...document, paths: {}, components: { schemas: document.components?.schemas ?? {} } };
  const types = await openapiTS(schemas, { rootTypes: true, rootTypesNoSchemaPrefix: true });
  const text = `// Generated from ${path} by \`npm run generate\`. Do not edit.\n\n${astToString(types)}`;
  await expect(text).toMatchFileSnapshot(`../src/wire/${service}.ts`);
});
