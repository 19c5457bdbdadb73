'use strict';
// Drives npm asana 1.x; it returns `data` alone, so that the secret is known to the target only.

const { wanted, refused, report } = require('./seen');
const Asana = require(`asana-${wanted.version}`);

const connect = (token) =>
    Asana.Client.create({ asanaBaseUrl: `${wanted.root_url}/` }).useAccessToken(token).webhooks;
const webhooks = connect(wanted.token);

const describe = (error) => ({
    status: error.status,
    errors: error.value.errors,
});

async function listed() {
    const pages = [];
    let page = await webhooks.getWebhooks({ workspace: wanted.workspace, limit: 2 });
    while (page !== null) {
        pages.push(page.data);
        page = await page.nextPage();
    }
    return pages;
}

async function errors(gid) {
    const resource = wanted.project;
    const { target, deaf_target: deafTarget } = wanted;
    return {
        bogus_token: await refused(() => connect('a-token-nobody-has').getWebhook(gid), describe),
        unknown_gid: await refused(() => webhooks.getWebhook('9999'), describe),
        missing_resource: await refused(() => webhooks.createWebhook({ target }), describe),
        duplicate: await refused(() => webhooks.createWebhook({ resource, target }), describe),
        no_handshake: await refused(() => webhooks.createWebhook({ resource, target: deafTarget }), describe),
    };
}

async function establish() {
    const { project: resource, target, filters } = wanted;
    const created = await webhooks.createWebhook({ resource, target, filters });
    // The older name of the same call.
    for (const more of wanted.more_targets) await webhooks.create(resource, more);
    return {
        created,
        secret: null,
        got: await webhooks.getWebhook(created.gid),
        pages: await listed(),
        updated: await webhooks.updateWebhook(created.gid, { filters: wanted.new_filters }),
        errors: await errors(created.gid),
    };
}

async function remove() {
    const answers = [];
    for (const gid of wanted.gids) answers.push((await webhooks.deleteWebhook(gid)) || {});
    return {
        answers,
        left: await listed(),
        gone: await refused(() => webhooks.getWebhook(wanted.gids[0]), describe),
    };
}

report(() => ({ establish, remove })[wanted.phase]());
