'use strict';
// Drives npm asana 3.x as its manual shows.

const { wanted, refused, report } = require('./seen');
const Asana = require(`asana-${wanted.version}`);

const client = Asana.ApiClient.instance;
client.basePath = wanted.base_url;
const token = client.authentications['token'];
token.accessToken = wanted.token;
const webhooks = new Asana.WebhooksApi();

const describe = (error) => ({
    status: error.response.status,
    errors: error.response.body.errors,
});

const create = (data, opts) => webhooks.createWebhook({ data }, opts);

async function listed(opts) {
    const pages = [];
    let page = await webhooks.getWebhooks(wanted.workspace, opts);
    while (page.data !== null) {
        pages.push(page.data);
        page = await page.nextPage();
    }
    return pages;
}

async function errors(gid) {
    const resource = wanted.project;
    token.accessToken = 'a-token-nobody-has';
    const bogusToken = await refused(() => webhooks.getWebhook(gid), describe);
    token.accessToken = wanted.token;
    return {
        bogus_token: bogusToken,
        unknown_gid: await refused(() => webhooks.getWebhook('9999'), describe),
        missing_resource: await refused(() => create({ target: wanted.target }), describe),
        duplicate: await refused(() => create({ resource, target: wanted.target }), describe),
        no_handshake: await refused(() => create({ resource, target: wanted.deaf_target }), describe),
    };
}

async function establish() {
    const resource = wanted.project;
    const body = await create({ resource, target: wanted.target, filters: wanted.filters });
    const gid = body.data.gid;
    for (const target of wanted.more_targets) await create({ resource, target });
    return {
        created: body.data,
        secret: body['X-Hook-Secret'],
        got: (await webhooks.getWebhook(gid)).data,
        pages: await listed({ limit: 2 }),
        updated: (await webhooks.updateWebhook({ data: { filters: wanted.new_filters } }, gid)).data,
        errors: await errors(gid),
    };
}

async function remove() {
    const answers = [];
    for (const gid of wanted.gids) answers.push((await webhooks.deleteWebhook(gid)).data);
    return {
        answers,
        left: await listed({ limit: 2 }),
        gone: await refused(() => webhooks.getWebhook(wanted.gids[0]), describe),
    };
}

// The five calls of the manual, each with these opt_fields.
async function fields() {
    const seen = {};
    for (const opt_fields of wanted.opt_fields) {
        const data = { resource: wanted.project, target: wanted.target, filters: wanted.filters };
        const created = await create(data, { opt_fields });
        const gid = created.data.gid;
        seen[opt_fields] = {
            create: created.data,
            get: (await webhooks.getWebhook(gid, { opt_fields })).data,
            list: (await webhooks.getWebhooks(wanted.workspace, { limit: 50, opt_fields })).data,
            update: (await webhooks.updateWebhook({ data: { filters: wanted.filters } }, gid, { opt_fields })).data,
            delete: (await webhooks.deleteWebhook(gid)).data,
        };
    }
    return seen;
}

report(() => ({ establish, remove, fields })[wanted.phase]());
