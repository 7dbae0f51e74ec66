// The text of the page's own code, for tests that read it. (The options must be literals.)
export const components = Object.values(
  import.meta.glob<string>("../src/**/*.tsx", { query: "?raw", import: "default", eager: true }),
);
export const modules = Object.values(
  import.meta.glob<string>("../src/*.ts", { query: "?raw", import: "default", eager: true }),
);
