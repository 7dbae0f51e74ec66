// Fails unless the committed `dist` is what the source builds to. Compressed files are compared by
// what they unpack to: zlib's output differs between Node versions and processors, its input doesn't.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { gunzipSync } from "node:zlib";

const committed = "dist";
const fresh = mkdtempSync(join(tmpdir(), "larder-web-ui-"));
try {
  execFileSync("npx", ["vite", "build", "--outDir", fresh, "--logLevel", "warn"], { stdio: "inherit" });
  execFileSync(process.execPath, ["scripts/gzip.mjs", fresh], { stdio: "ignore" });
  const differences = compare(contents(committed), contents(fresh));
  if (differences.length > 0) {
    console.error(`dist is not the build of the source: run "npm run build" and commit it.`);
    differences.forEach((line) => console.error(`  ${line}`));
    process.exitCode = 1;
  } else {
    console.log("dist is the build of the source");
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}

function contents(root) {
  const files = new Map();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const bytes = readFileSync(path);
    files.set(relative(root, path), path.endsWith(".gz") ? gunzipSync(bytes) : bytes);
  }
  return files;
}

function compare(ours, theirs) {
  const lines = [];
  for (const [path, bytes] of ours) {
    if (!theirs.has(path)) lines.push(`${path}: not built any more`);
    else if (!bytes.equals(theirs.get(path))) lines.push(`${path}: differs`);
  }
  for (const path of theirs.keys()) if (!ours.has(path)) lines.push(`${path}: missing`);
  return lines;
}
