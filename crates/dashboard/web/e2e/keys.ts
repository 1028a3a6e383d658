// Makes and revokes keys. ACCESS_PROGRAM is the access binary, and the variables of libpq and
// ACCESS_PASSWORD lead it to the database of the stack.

import { execFileSync } from "node:child_process";

const PROGRAM = process.env["ACCESS_PROGRAM"];

/** Whether the tests that need further keys are to be skipped. */
export const NO_KEYS = PROGRAM === undefined;

function access(...words: string[]): string {
  const { PGHOST, PGPORT, PGDATABASE, ACCESS_PASSWORD } = process.env;
  const env = { PGHOST, PGPORT, PGDATABASE, NEWCYCLE__DATABASE__PASSWORD: ACCESS_PASSWORD };
  return execFileSync(PROGRAM ?? "", words, { env, encoding: "utf8" }).trim();
}

let made = 0;

/** Makes a key, and returns it with its name. */
export function newKey(scopes: string, expires = "1h"): { readonly key: string; readonly name: string } {
  made += 1;
  const name = `page-${process.pid}-${made}`;
  return { name, key: access("create", "--name", name, "--scope", scopes, "--expires", expires) };
}

export const revoke = (name: string): string => access("revoke", name);
