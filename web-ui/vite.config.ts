import { defineConfig } from "vite";

// Everything in one hashed script and one hashed style sheet: two requests after index.html, cached
// for good. Nothing is inlined, because the page's CSP allows neither data: nor inline anything.
export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: ["es2020", "chrome87", "safari14", "firefox90"],
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    // `npm run dev` against a device: `LARDER_ADMIN=http://127.0.0.1:8080 npm run dev`. The Host
    // header stays the dev server's own, so the device's Origin check sees one and the same site.
    proxy: process.env.LARDER_ADMIN
      ? { "/api": { target: process.env.LARDER_ADMIN, changeOrigin: false } }
      : undefined,
  },
  test: { include: ["test/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
