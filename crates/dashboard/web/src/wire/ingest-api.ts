// Generated from docs/openapi/ingest-api.json by `npm run generate`. Do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description What an item can be an instance of. */
        BaseItem: {
            /** @description Says what it is. */
            description: components["schemas"]["Description"];
            /** @description Identifies it. */
            id: components["schemas"]["BaseItemId"];
        };
        /**
         * Format: uuid
         * @description Identifies a base item.
         */
        BaseItemId: string;
        /** @description What became of the lines of an upload. */
        Counts: {
            /**
             * Format: int64
             * @description Lines stored.
             */
            accepted: number;
            /**
             * Format: int64
             * @description Lines refused.
             */
            rejected: number;
            /**
             * Format: int64
             * @description Lines that were stored already, with the same content.
             */
            repeated: number;
        };
        /**
         * @description A text that says what a base item is. It may have every character but NUL.
         * @example a bicycle
         */
        Description: string;
        /**
         * Format: date-time
         * @description When an event happened: in UTC, in years 1 to 9999, at the microseconds that Postgres keeps.
         * @example 2026-11-23T09:37:00.123456Z
         */
        EventTime: string;
        /** @description One item: an event of the metric item-creation. */
        Item: {
            /** @description What it is an instance of. */
            base_item_id: components["schemas"]["BaseItemId"];
            /** @description When it was created. */
            created_at: components["schemas"]["EventTime"];
            /** @description Identifies it. */
            id: components["schemas"]["ItemId"];
        };
        /**
         * Format: uuid
         * @description Identifies an item.
         */
        ItemId: string;
        /** @description A line that was refused. */
        LineError: {
            /** @description What is wrong. */
            detail: string;
            /** @description The field that is wrong, where it is one. */
            field: string | null;
            /**
             * Format: int64
             * @description Its number, from 1.
             */
            line: number;
        };
        /** @description A base item to store. */
        NewBaseItem: {
            /** @description Says what it is. */
            description: components["schemas"]["Description"];
            /**
             * Format: uuid
             * @description Identifies it; a new one is made where it is left out.
             */
            id?: string | null;
        };
        /** @description An item to store. */
        NewItem: {
            /** @description What it is an instance of. */
            base_item_id: components["schemas"]["BaseItemId"];
            created_at?: components["schemas"]["EventTime"] | null;
            /**
             * Format: uuid
             * @description Identifies it; a new one is made where it is left out.
             */
            id?: string | null;
        };
        /** @description The next owner of an item. */
        NewOwner: {
            /** @description The user that the item passes to. */
            to: components["schemas"]["UserId"];
        };
        /** @description A transfer to store. */
        NewTransfer: {
            /**
             * Format: uuid
             * @description Identifies it; a new one is made where it is left out.
             */
            id?: string | null;
            /** @description The item. */
            item_id: components["schemas"]["ItemId"];
            /** @description The user that the item passes to. */
            owner_id: components["schemas"]["UserId"];
            timestamp?: components["schemas"]["EventTime"] | null;
        };
        /** @description A user to store. */
        NewUser: {
            /**
             * Format: uuid
             * @description Identifies them; a new one is made where it is left out.
             */
            id?: string | null;
        };
        /** @description Who owns an item now: nobody, as long as it was never transferred. */
        Owner: {
            /** @description The item. */
            item_id: components["schemas"]["ItemId"];
            owner_id: components["schemas"]["UserId"] | null;
            since: components["schemas"]["EventTime"] | null;
            transfer_id: components["schemas"]["TransferId"] | null;
        };
        /** @description What is wrong with a request, or with the service: RFC 9457 problem details. */
        Problem: {
            /** @description What is wrong in this request, for people. */
            detail: string;
            /** @description The field, parameter or header that is wrong, where it is one. */
            field?: string;
            /** @description The status of the answer. */
            status: number;
            /** @description The kind of problem, for people. */
            title: string;
            /**
             * Format: uri-reference
             * @description Tells programs what kind of problem it is; stable.
             * @example /problems/not-found
             */
            type: string;
        };
        /** @description An item passing to a user: an event of the metric transfers. */
        Transfer: {
            /** @description Identifies it. */
            id: components["schemas"]["TransferId"];
            /** @description The item. */
            item_id: components["schemas"]["ItemId"];
            /** @description The user that the item passed to. */
            owner_id: components["schemas"]["UserId"];
            /** @description When it happened. */
            timestamp: components["schemas"]["EventTime"];
        };
        /**
         * Format: uuid
         * @description Identifies a transfer.
         */
        TransferId: string;
        /** @description An upload some of whose lines were rejected; the others are committed. */
        UploadProblem: components["schemas"]["Problem"] & components["schemas"]["Counts"] & {
            /** @description The first of the lines that were rejected. */
            errors: components["schemas"]["LineError"][];
        };
        /** @description Who can own items. */
        User: {
            /** @description Identifies them. */
            id: components["schemas"]["UserId"];
        };
        /**
         * Format: uuid
         * @description Identifies a user.
         */
        UserId: string;
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type BaseItem = components['schemas']['BaseItem'];
export type BaseItemId = components['schemas']['BaseItemId'];
export type Counts = components['schemas']['Counts'];
export type Description = components['schemas']['Description'];
export type EventTime = components['schemas']['EventTime'];
export type Item = components['schemas']['Item'];
export type ItemId = components['schemas']['ItemId'];
export type LineError = components['schemas']['LineError'];
export type NewBaseItem = components['schemas']['NewBaseItem'];
export type NewItem = components['schemas']['NewItem'];
export type NewOwner = components['schemas']['NewOwner'];
export type NewTransfer = components['schemas']['NewTransfer'];
export type NewUser = components['schemas']['NewUser'];
export type Owner = components['schemas']['Owner'];
export type Problem = components['schemas']['Problem'];
export type Transfer = components['schemas']['Transfer'];
export type TransferId = components['schemas']['TransferId'];
export type UploadProblem = components['schemas']['UploadProblem'];
export type User = components['schemas']['User'];
export type UserId = components['schemas']['UserId'];
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
