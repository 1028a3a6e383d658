// Generated from docs/openapi/ingest-api.json by `npm run generate`. Do not edit.

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
        /** @description A kind of thing that items are instances of. */
        BaseItem: {
            /** @description Describes the base item. */
            description: components["schemas"]["Description"];
            /** @description The id of the base item. */
            id: components["schemas"]["BaseItemId"];
        };
        /**
         * Format: uuid
         * @description The id of a base item.
         */
        BaseItemId: string;
        /**
         * @description Describes a base item. Any character except NUL (U+0000) is allowed.
         * @example a bicycle
         */
        Description: string;
        /**
         * Format: date-time
         * @description The time of an event, within the years 1 to 9999 in UTC. Digits beyond microseconds are cut off.
         * @example 2026-11-23T09:37:00.123456Z
         */
        EventTime: string;
        /** @description An item. Its creation is an event of the metric `item-creation`. */
        Item: {
            /** @description The base item that this item is an instance of. */
            base_item_id: components["schemas"]["BaseItemId"];
            /** @description When the item was created. */
            created_at: components["schemas"]["EventTime"];
            /** @description The id of the item. */
            id: components["schemas"]["ItemId"];
        };
        /**
         * Format: uuid
         * @description The id of an item.
         */
        ItemId: string;
        /** @description The outcomes of the lines of an upload, or of the elements of an array. */
        LineCounts: {
            /**
             * Format: int64
             * @description Lines that are stored now.
             */
            accepted: number;
            /**
             * Format: int64
             * @description Lines that are not stored.
             */
            rejected: number;
            /**
             * Format: int64
             * @description Lines that were stored before, with the same content.
             */
            repeated: number;
        };
        /** @description A line that was rejected. */
        LineError: {
            /** @description What is wrong. */
            detail: string;
            /** @description The field that is wrong, if one field is. */
            field: string | null;
            /**
             * Format: int64
             * @description The number of the line, or of the element of an array, from 1.
             */
            line: number;
        };
        /** @description A base item to store. */
        NewBaseItem: {
            /** @description Describes the base item. */
            description: components["schemas"]["Description"];
            /**
             * Format: uuid
             * @description The id of the base item. If it is left out, the service generates one.
             */
            id?: string;
        };
        /** @description An item to store. */
        NewItem: {
            /** @description The base item that this item is an instance of. */
            base_item_id: components["schemas"]["BaseItemId"];
            created_at?: components["schemas"]["EventTime"] | null;
            /**
             * Format: uuid
             * @description The id of the item. If it is left out, the service generates one.
             */
            id?: string;
        };
        /** @description The new owner of an item. */
        NewOwner: {
            /** @description The user who receives the item. */
            to: components["schemas"]["UserId"];
        };
        /** @description A transfer to store. */
        NewTransfer: {
            /**
             * Format: uuid
             * @description The id of the transfer. If it is left out, the service generates one.
             */
            id?: string;
            /** @description The item that is transferred. */
            item_id: components["schemas"]["ItemId"];
            /** @description The user who receives the item. */
            owner_id: components["schemas"]["UserId"];
            timestamp?: components["schemas"]["EventTime"] | null;
        };
        /** @description A user to store. */
        NewUser: {
            /**
             * Format: uuid
             * @description The id of the user. If it is left out, the service generates one.
             */
            id?: string;
        };
        /**
         * @description The current owner of an item. All fields but `item_id` are null if the item was never
         *     transferred.
         */
        Owner: {
            /** @description The item. */
            item_id: components["schemas"]["ItemId"];
            owner_id: components["schemas"]["UserId"] | null;
            since: components["schemas"]["EventTime"] | null;
            transfer_id: components["schemas"]["TransferId"] | null;
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
        /** @description A transfer of an item to a user, which is an event of the metric `transfers`. */
        Transfer: {
            /** @description The id of the transfer. */
            id: components["schemas"]["TransferId"];
            /** @description The item that was transferred. */
            item_id: components["schemas"]["ItemId"];
            /** @description The user who received the item. */
            owner_id: components["schemas"]["UserId"];
            /** @description When the item was transferred. */
            timestamp: components["schemas"]["EventTime"];
        };
        /**
         * Format: uuid
         * @description The id of a transfer.
         */
        TransferId: string;
        /** @description Some lines of an upload were rejected; the other lines are committed. Or: an array does not end where the body does; the elements before are committed. */
        UploadProblem: components["schemas"]["Problem"] & components["schemas"]["UploadReport"];
        /** @description The outcome of an upload that arrived completely. */
        UploadReport: components["schemas"]["LineCounts"] & {
            /** @description The first rejected lines, in their order. */
            errors: components["schemas"]["LineError"][];
        };
        /** @description A user, who can own items. */
        User: {
            /** @description The id of the user. */
            id: components["schemas"]["UserId"];
        };
        /**
         * Format: uuid
         * @description The id of a user.
         */
        UserId: string;
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type Access = components['schemas']['Access'];
export type BaseItem = components['schemas']['BaseItem'];
export type BaseItemId = components['schemas']['BaseItemId'];
export type Description = components['schemas']['Description'];
export type EventTime = components['schemas']['EventTime'];
export type Item = components['schemas']['Item'];
export type ItemId = components['schemas']['ItemId'];
export type LineCounts = components['schemas']['LineCounts'];
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
export type UploadReport = components['schemas']['UploadReport'];
export type User = components['schemas']['User'];
export type UserId = components['schemas']['UserId'];
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
