// Puts a .gz beside every file of the build that gets smaller by it. The gzip header carries no time
// and no name, so the same input gives the same bytes.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** A reader that sends two files where one would do gains nothing from saving less. */
const WORTH_BYTES = 64;

const root = process.argv[2];
let total = 0;
for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || entry.name.endsWith(".gz")) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  const plain = readFileSync(path);
  const packed = gzipSync(plain, { level: 9 });
  const worth = packed.length + WORTH_BYTES < plain.length;
  if (worth) writeFileSync(`${path}.gz`, packed);
  total += worth ? packed.length : plain.length;
  console.log(`${String(worth ? packed.length : plain.length).padStart(7)}  ${entry.name}`);
}
console.log(`${String(total).padStart(7)}  bytes over the wire in all`);
