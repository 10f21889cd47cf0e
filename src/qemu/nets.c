/* -netdev, -nic, -net, and the -device of a network card; see qemu_int.h. */
#include <string.h>

#include "qemu/qemu_int.h"

/* --- cards --- */

/* Ours for QEMU's model; a note where it is another. */
static bool take_model(struct qemu *q, const char *option, const char *name,
                       struct qemu_card *c) {
    static const char *const close[] = {
        "e1000e",        "rtl8139", "pcnet",    "ne2k_pci", "ne2k_isa",
        "i82551",        "i82557b", "i82559er", "vmxnet3",  "e1000-82544gc",
        "e1000-82545em", "i82550",  "i82562",   "tulip",    "igb"};

    if (!strcmp(name, "virtio") || !strncmp(name, "virtio-net", 10)) {
        c->model = "virtio";
        return true;
    }
    c->model = "e1000";
    if (!strcmp(name, "e1000") || !strcmp(name, "e1000-82540em"))
        return true;
    for (size_t n = 0; n < ARRAY_SIZE(close); n++) {
        if (!strcmp(name, close[n])) {
            qemu_note(q, "%s: there is no card '%s'; the guest gets an e1000", option,
                      name);
            return true;
        }
    }
    return qemu_refuse(q, "%s: bivisor has the cards virtio and e1000, not '%s'", option,
                       name);
}

static struct qemu_card *add_card(struct qemu *q, const char *option) {
    if (q->card_count == QEMU_NETS) {
        qemu_refuse(q, "%s: more than %u network cards are not possible", option,
                    QEMU_NETS);
        return NULL;
    }
    q->net_said = true;
    q->card[q->card_count] = (struct qemu_card){.bootindex = -1};
    return &q->card[q->card_count++];
}

bool qemu_attach_card(struct qemu *q, struct qemu_list *l, const char *model) {
    struct qemu_card *c = add_card(q, l->option);

    if (!c || !take_model(q, l->option, model, c))
        return false;
    c->netdev = qemu_value(l, "netdev");
    c->mac = qemu_value(l, "mac");
    if (!c->netdev)
        qemu_note(q, "%s: a card without a netdev is left out", l->option);
    return qemu_number(q, l, "bootindex", -1, 1 << 20, &c->bootindex) &&
           qemu_rest(
               q, l,
               "id bus addr mq vectors romfile rombar csum guest_csum gso guest_* "
               "host_* ctrl_* mrg_rxbuf status rx_queue_size tx_queue_size tx "
               "x-* event_idx indirect_desc any_layout disable-modern disable-legacy "
               "multifunction iommu_platform ats packed failover speed duplex vlan "
               "ioeventfd acpi-index port rss hash ");
}

/* --- where their cables lead --- */

/* hostfwd=[tcp|udp]:[ADDR]:PORT-[GUESTADDR]:PORT */
static const char *forward(struct qemu *q, const char *option, const char *value) {
    char *text = qemu_format(q, "%s", value), *addr = strchr(text, ':'), *port, *guest;
    char *guest_port;

    port = addr ? strchr(addr + 1, ':') : NULL;
    guest = port ? strchr(port + 1, '-') : NULL;
    guest_port = guest ? strchr(guest + 1, ':') : NULL;
    if (!guest_port) {
        qemu_refuse(q, "%s: hostfwd wants PROTOCOL:ADDR:PORT-ADDR:PORT, not '%s'", option,
                    value);
        return "";
    }
    *addr++ = *port++ = *guest++ = *guest_port++ = 0;
    if (*guest && strcmp(guest, "10.0.2.15") != 0)
        qemu_refuse(q,
                    "%s: a port is forwarded to the guest's own address, 10.0.2.15, "
                    "not to '%s'",
                    option, guest);
    return qemu_format(q, ",forward=%s:%s:%s:%s", *text ? text : "tcp",
                       *addr ? addr : "0.0.0.0", port, guest_port);
}

static const char *user(struct qemu *q, struct qemu_list *l) {
    static const char *const files[] = {"tftp", "bootfile"};
    static const char *const addresses[] = {"net", "host", "dhcpstart", "dns"};
    const char *net = "user";
    bool restricted;

    if (!qemu_switch(q, l, "restrict", false, &restricted))
        return NULL;
    if (restricted)
        net = "user,restrict";
    for (size_t n = 0; n < l->count; n++) {
        if (strcmp(l->pair[n].name, "hostfwd") != 0)
            continue;
        l->pair[n].used = true;
        net = qemu_format(q, "%s%s", net, forward(q, l->option, l->pair[n].value));
    }
    for (size_t n = 0; n < ARRAY_SIZE(files); n++) {
        const char *value = qemu_value(l, files[n]);

        if (value && *value)
            net = qemu_format(q, "%s,%s=%s", net, files[n], qemu_escape(q, value));
    }
    for (size_t n = 0; n < ARRAY_SIZE(addresses); n++)
        if (qemu_value(l, addresses[n]))
            qemu_note(q,
                      "%s: the guest's network is 10.0.2.0/24, this host 10.0.2.2 in it",
                      l->option);
    return qemu_rest(
               q, l,
               "id ipv4 ipv6 ipv6-net ipv6-host ipv6-prefix ipv6-prefixlen ipv6-dns "
               "tftp-server-name hostname domainname dnssearch vlan name ")
               ? net
               : NULL;
}

static const char *tap(struct qemu *q, struct qemu_list *l) {
    const char *name = qemu_value(l, "ifname"), *script = qemu_value(l, "script");

    if (!name) {
        qemu_refuse(q,
                    "%s: bivisor takes a TAP interface that is there: say which by "
                    "ifname=",
                    l->option);
        return NULL;
    }
    if (script && strcmp(script, "no") != 0 && *script)
        qemu_note(q, "%s: no script is run: '%s' is for you to run", l->option, script);
    return qemu_rest(q, l,
                     "id downscript vhost vhostforce queues sndbuf vnet_hdr poll-us "
                     "vlan br helper ")
               ? qemu_format(q, "tap=%s", name)
               : NULL;
}

static const char *stream(struct qemu *q, struct qemu_list *l) {
    const char *type = qemu_value(l, "addr.type"), *where = qemu_value(l, "addr.path");
    const char *host = qemu_value(l, "addr.host"), *port = qemu_value(l, "addr.port");
    bool listens;

    if (!qemu_switch(q, l, "server", false, &listens))
        return NULL;
    if (type && !strcmp(type, "inet") && host && port) {
        where = qemu_port(q, l->option, host, port, listens);
        if (!where)
            return NULL;
    } else if (!type || strcmp(type, "unix") != 0 || !where) {
        qemu_refuse(q,
                    "%s: bivisor meets its peer at a socket: addr.type=unix,"
                    "addr.path=PATH, or addr.type=inet,addr.host=ADDR,addr.port=N",
                    l->option);
        return NULL;
    }
    return qemu_rest(q, l, "id reconnect reconnect-ms addr.abstract addr.ipv4 addr.ipv6 ")
               ? qemu_format(q, "socket=%s%s", qemu_escape(q, where),
                             listens ? ",listen" : "")
               : NULL;
}

/* HOST:PORT, of the framing that streams have, too. */
static const char *socket_net(struct qemu *q, struct qemu_list *l) {
    const char *listen = qemu_value(l, "listen"), *connect = qemu_value(l, "connect");
    char *host = qemu_format(q, "%s", listen ? listen : connect ? connect : "");
    char *port = strrchr(host, ':');
    const char *where;

    if (!listen == !connect || !port) {
        qemu_refuse(q,
                    "%s: a socket's network is a peer at listen=HOST:PORT or "
                    "connect=HOST:PORT",
                    l->option);
        return NULL;
    }
    *port++ = 0;
    where = qemu_port(q, l->option, host, port, listen);
    return where && qemu_rest(q, l, "id vlan name ")
               ? qemu_format(q, "socket=%s%s", where, listen ? ",listen" : "")
               : NULL;
}

/* The network as --net has it; NULL after a refusal. */
static const char *network(struct qemu *q, struct qemu_list *l, const char *kind) {
    if (!strcmp(kind, "user"))
        return user(q, l);
    if (!strcmp(kind, "tap"))
        return tap(q, l);
    if (!strcmp(kind, "stream"))
        return stream(q, l);
    if (!strcmp(kind, "socket"))
        return socket_net(q, l);
    qemu_refuse(q, "%s: bivisor has the networks user, tap, stream and socket, not '%s'",
                l->option, kind);
    return NULL;
}

static struct qemu_net *add_net(struct qemu *q, const char *option, const char *id,
                                const char *net) {
    if (q->net_count == QEMU_NETS) {
        qemu_refuse(q, "%s: more than %u networks are not possible", option, QEMU_NETS);
        return NULL;
    }
    q->net[q->net_count] = (struct qemu_net){.id = id, .net = net};
    return &q->net[q->net_count++];
}

/* --- options --- */

bool qemu_take_netdev(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *id, *net;

    if (!qemu_split(q, &l, option, value, "type"))
        return false;
    id = qemu_value(&l, "id");
    if (!id)
        return qemu_refuse(q, "%s '%s' has no id", option, value);
    net = network(q, &l, qemu_value(&l, "type") ? qemu_value(&l, "type") : "");
    return net && add_net(q, option, id, net);
}

/* A card and its network at once. */
bool qemu_take_nic(struct qemu *q, const char *option, const char *value) {
    const char *kind, *model, *mac, *id, *net;
    struct qemu_card *c;
    struct qemu_list l;

    if (!qemu_split(q, &l, option, value, "type"))
        return false;
    kind = qemu_value(&l, "type");
    kind = kind ? kind : "user";
    q->net_said = true;
    if (!strcmp(kind, "none"))
        return qemu_rest(q, &l, "");
    model = qemu_value(&l, "model");
    mac = qemu_value(&l, "mac");
    if (!mac)
        mac = qemu_value(&l, "macaddr");
    id = qemu_value(&l, "id");
    if (!id)
        id = qemu_format(q, "nic %u", (unsigned)q->card_count);
    c = add_card(q, option);
    if (!c || !take_model(q, option, model ? model : "e1000", c))
        return false;
    c->mac = mac;
    c->netdev = id;
    net = network(q, &l, kind);
    return net && add_net(q, option, id, net);
}

/* The way of old: one hub that cards and networks hang at. One of each is what is
 * written. */
bool qemu_take_net(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *kind, *text;

    if (!qemu_split(q, &l, option, value, "type"))
        return false;
    kind = qemu_value(&l, "type");
    q->net_said = true;
    if (!kind || !strcmp(kind, "none"))
        return true;
    if (strcmp(kind, "nic") != 0) {
        if (q->legacy_net)
            return qemu_refuse(q,
                               "%s: one network of this kind is possible; -netdev and "
                               "-device make more",
                               option);
        q->legacy_net = network(q, &l, kind);
        return q->legacy_net;
    }
    if (q->legacy_has_card)
        return qemu_refuse(q,
                           "%s: one card of this kind is possible; -netdev and -device "
                           "make more",
                           option);
    q->legacy_has_card = true;
    q->legacy_card = (struct qemu_card){.bootindex = -1};
    text = qemu_value(&l, "model");
    if (!take_model(q, option, text ? text : "e1000", &q->legacy_card))
        return false;
    text = qemu_value(&l, "mac");
    q->legacy_card.mac = text ? text : qemu_value(&l, "macaddr");
    q->legacy_card.netdev = qemu_value(&l, "netdev");
    return qemu_rest(q, &l, "vlan name addr vectors ");
}
