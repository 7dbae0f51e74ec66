// What the device holds. Names come from a list made elsewhere: they are text and stay text.

import { useState } from "preact/hooks";
import type { Cache, Content } from "../api";
import { bytes, date, percent, plainName } from "../format";
import { useI18n, type Key } from "../i18n";

/** A screenful or two; the rest on request. */
const SHOWN_AT_FIRST = 20;

export function CacheCard({ cache }: { cache: Cache }) {
  const { t, locale } = useI18n();
  const [all, setAll] = useState(false);
  const { contents } = cache;
  const shown = all ? contents : contents.slice(0, SHOWN_AT_FIRST);
  return (
    <section class="card cache" aria-labelledby="cache-title">
      <div class="title-line">
        <h2 id="cache-title">{t("cache")}</h2>
        <span class="quiet">
          {t("cache_used", {
            used: bytes(cache.used_bytes, locale),
            quota: bytes(cache.quota_bytes, locale),
          })}
        </span>
      </div>
      {contents.length === 0 ? (
        <div class="empty">
          <p>{t("cache_empty")}</p>
          <p class="quiet">{t("cache_empty_text")}</p>
        </div>
      ) : (
        <ul>
          {shown.map((content) => (
            <ContentRow key={content.infohash} content={content} />
          ))}
        </ul>
      )}
      {shown.length < contents.length && (
        <button type="button" onClick={() => setAll(true)}>
          {t("show_all", { n: contents.length })}
        </button>
      )}
    </section>
  );
}

function ContentRow({ content }: { content: Content }) {
  const { t, locale } = useI18n();
  const c = content;
  const name = plainName(c.name) || t("content_unnamed");
  const size = bytes(c.size_bytes, locale);
  const filling = c.held_bytes < c.size_bytes;
  const filled = percent(c.held_bytes, c.size_bytes, locale);
  return (
    <li data-infohash={c.infohash}>
      <div class="title-line">
        <bdi class="name">{name}</bdi>
        <span class={`badge content-${c.state}`}>{t(`content_${c.state}` as Key)}</span>
      </div>
      {filling && (
        <div class="fill">
          <progress max={c.size_bytes} value={c.held_bytes} aria-label={`${name}: ${filled}`} />
          <span class="quiet">
            {t("content_filled", {
              part: bytes(c.held_bytes, locale),
              whole: size,
              percent: filled,
            })}
          </span>
        </div>
      )}
      {c.problem && (
        <p class="problem" lang="en">
          {c.problem}
        </p>
      )}
      {c.waits && (
        <p class="hint" lang="en">
          {c.waits}
        </p>
      )}
      <dl class="facts in-line">
        {!filling && <Fact name={t("content_size")} value={size} />}
        <Fact name={t("content_served")} value={bytes(c.egress_bytes, locale)} />
        <Fact name={t("content_until")} value={date(c.lease_end, locale)} />
      </dl>
      {c.filled_by_web_seed_bytes + c.filled_by_peer_bytes > 0 && (
        <p class="hint">
          {t("content_sources", {
            web: bytes(c.filled_by_web_seed_bytes, locale),
            peer: bytes(c.filled_by_peer_bytes, locale),
          })}
        </p>
      )}
    </li>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
