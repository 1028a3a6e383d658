// Generated from docs/openapi/sse-gateway.json by `npm run generate`. Do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description What a client may do. */
        Access: {
            /**
             * Format: int64
             * @description After how many seconds it ends by itself; null if it does not.
             */
            expires_in: number | null;
            /** @description `key`, `anonymous`, or `everyone` if requests need no key. */
            kind: string;
            /** @description The name of the key. */
            name: string;
            /** @description What it may do. */
            scopes: string[];
        };
        /**
         * @description The key was revoked, it has expired, or the gateway has been cut off from the list of keys for
         *     too long.
         * @enum {string}
         */
        AccessEnd: "revoked" | "expired" | "unknown";
        /** @description A bucket and its absolute count. */
        Bucket: {
            /**
             * Format: int64
             * @description The number of events in the bucket.
             */
            count: number;
            /**
             * Format: date-time
             * @description The start of the bucket, in UTC.
             */
            time: string;
        };
        /** @description The buckets of one topic in a period, oldest first, from one snapshot of the database. */
        HistoryPage: {
            buckets: components["schemas"]["Bucket"][];
            /**
             * Format: date-time
             * @description The start of the page.
             */
            from: string;
            /**
             * Format: date-time
             * @description The `from` of the next page; null on the last one.
             */
            next: string | null;
            /**
             * Format: date-time
             * @description The end of the period; null if it is open.
             */
            to: string | null;
            /** @enum {string} */
            topic: "item-creation/millisecond" | "item-creation/second" | "item-creation/minute" | "item-creation/hour" | "item-creation/day" | "item-creation/week" | "item-creation/month" | "item-creation/quarter" | "item-creation/year" | "transfers/millisecond" | "transfers/second" | "transfers/minute" | "transfers/hour" | "transfers/day" | "transfers/week" | "transfers/month" | "transfers/quarter" | "transfers/year";
        };
        /** @description Problem details (RFC 9457): what is wrong with the request or with the service. */
        Problem: {
            /** @description What is wrong with this request, for people. */
            detail: string;
            /** @description The field, parameter or header that is wrong, if it is one. */
            field?: string;
            /** @description The status of the answer. */
            status: number;
            /** @description The kind of problem, for people. */
            title: string;
            /**
             * Format: uri-reference
             * @description The kind of problem, for programs. It is stable.
             * @example /problems/not-found
             */
            type: string;
        };
        /** @description Whether the counts are live. */
        Status: {
            access?: components["schemas"]["StreamAccess"] | null;
            /**
             * Format: int64
             * @description How old the counts of this stream are, in milliseconds: they have every event that was
             *     committed before. Absent before the first counts.
             */
            age_ms?: number;
            /**
             * Format: date-time
             * @description The time of the server.
             */
            now: string;
            /**
             * Format: date-time
             * @description When `upstream` became live, or when it was last known to be live.
             */
            since: string;
            upstream: components["schemas"]["Upstream"];
        };
        /** @description How long the client may follow the stream; absent if that has no end. */
        StreamAccess: {
            ended?: components["schemas"]["AccessEnd"] | null;
            /**
             * Format: int64
             * @description The number of seconds left. After 0, the stream ends.
             */
            expires_in: number;
        };
        /** @description The newest buckets of one topic, oldest first. */
        TopicWindow: {
            buckets: components["schemas"]["Bucket"][];
            /** @enum {string} */
            topic: "item-creation/millisecond" | "item-creation/second" | "item-creation/minute" | "item-creation/hour" | "item-creation/day" | "item-creation/week" | "item-creation/month" | "item-creation/quarter" | "item-creation/year" | "transfers/millisecond" | "transfers/second" | "transfers/minute" | "transfers/hour" | "transfers/day" | "transfers/week" | "transfers/month" | "transfers/quarter" | "transfers/year";
            /** @description The maximum number of buckets to keep. Beyond it, the oldest are dropped. */
            window: number;
        };
        /**
         * @description `stale` means that the counts may be old, because the gateway has lost its upstream.
         * @enum {string}
         */
        Upstream: "live" | "stale";
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type Access = components['schemas']['Access'];
export type AccessEnd = components['schemas']['AccessEnd'];
export type Bucket = components['schemas']['Bucket'];
export type HistoryPage = components['schemas']['HistoryPage'];
export type Problem = components['schemas']['Problem'];
export type Status = components['schemas']['Status'];
export type StreamAccess = components['schemas']['StreamAccess'];
export type TopicWindow = components['schemas']['TopicWindow'];
export type Upstream = components['schemas']['Upstream'];
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
