/* See loop.h. */
#include "loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h */
#endif

/* The reads of the TUN lie one behind the other, so that the packets of a train are one piece of memory, and begin
 * again at the front when less than a packet's room is left behind them.  What waits then must not be overwritten by
 * the next read: it begins in a superpacket at worst, and reaches a train's bytes beyond it at most. */
#define ARENA (4 * 65536)
_Static_assert(ARENA >= 3 * IPV4_MAX_PACKET + TRAIN_BYTES, "room for a read, what waits, and the rest behind it");
#define READS_BETWEEN_GLANCES 256 /* how long a busy direction may not notice that it should stop */
/* Datagrams that one system call reads: as many as make a whole superpacket.  Where they arrive as trains, joined by
 * UDP_GRO, a few do, and more would only push one another out of the caches. */
#define BATCH 64
#define BATCH_OF_TRAINS 16
/* Room for each.  What is beyond 64 KiB keeps their beginnings from meeting in the same sets of the caches. */
#define DATAGRAM (65536 + 1664)
#define PATIENCE 3      /* waits for room in the socket's buffer, */
#define PATIENCE_MS 100 /* each at most this long */

enum wake { WAKE_READ, WAKE_STOP, WAKE_FAILED };

int loop_init(struct loop *loop, struct engine *engine, int tun_fd, int udp_fd, int stop_fd)
{
    *loop = (struct loop){.engine = engine, .tun_fd = tun_fd, .udp_fd = udp_fd, .stop_fd = stop_fd};
    loop->tx_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->tx_wake_fd < 0)
        return errno;
    loop->rx_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->rx_wake_fd < 0) {
        int error = errno;
        close(loop->tx_wake_fd);
        return error;
    }
    return 0;
}

void loop_destroy(struct loop *loop)
{
    close(loop->tx_wake_fd);
    close(loop->rx_wake_fd);
}

bool loop_replace(struct loop *loop, const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM])
{
    if (!engine_replace(loop->engine, packed, length, problem))
        return false;
    eventfd_write(loop->tx_wake_fd, 1);
    eventfd_write(loop->rx_wake_fd, 1);
    return true;
}

/* Until there is something to do; with `idle` false it only looks.  What is found to be readable is found out by
 * reading, as is what is wrong with `fd`. */
static enum wake wait_readable(const struct loop *loop, int fd, int wake_fd, bool idle)
{
    struct pollfd fds[3] = {
        {.fd = loop->stop_fd, .events = POLLIN},
        {.fd = fd, .events = POLLIN},
        {.fd = wake_fd, .events = POLLIN},
    };
    int ready;
    do
        ready = poll(fds, 3, idle ? -1 : 0);
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return WAKE_FAILED;
    if (fds[0].revents & POLLIN)
        return WAKE_STOP;
    if (fds[0].revents != 0) {
        errno = EBADF;
        return WAKE_FAILED;
    }
    if (fds[2].revents & POLLIN) {
        eventfd_t posted;
        eventfd_read(wake_fd, &posted);
    }
    return WAKE_READ;
}

static bool is_dead(int error)
{
    /* EBADFD: the TUN device is gone (drivers/net/tun.c). */
    return error == EBADF || error == EBADFD || error == ENOTSOCK || error == EFAULT;
}

/* One direction's view of the loop, the context of its edge. */
struct direction {
    struct loop *loop;
    int dead; /* errno of a descriptor that is, 0 as long as none is */
};

static bool write_tun(struct direction *direction, const struct iovec *pieces, size_t count)
{
    ssize_t written;
    do
        written = writev(direction->loop->tun_fd, pieces, (int)count);
    while (written < 0 && errno == EINTR);
    if (written < 0 && is_dead(errno))
        direction->dead = errno;
    return written >= 0;
}

/* Whether the socket may take more.  False when it is time to stop, too. */
static bool wait_writable(const struct loop *loop)
{
    struct pollfd fds[2] = {
        {.fd = loop->stop_fd, .events = POLLIN},
        {.fd = loop->udp_fd, .events = POLLOUT},
    };
    return poll(fds, 2, PATIENCE_MS) >= 0 && fds[0].revents == 0;
}

static int send_udp(struct direction *direction, const struct send *send)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(send->port),
        .sin_addr.s_addr = htonl(send->peer),
    };
    struct msghdr message = {
        .msg_name = &to,
        .msg_namelen = sizeof to,
        .msg_iov = send->pieces,
        .msg_iovlen = send->piece_count,
    };
    if (send->segment_size != 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = IPPROTO_UDP;
        header->cmsg_type = UDP_SEGMENT;
        header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        memcpy(CMSG_DATA(header), &send->segment_size, sizeof(uint16_t));
    }
    for (unsigned waits = 0;;) {
        if (sendmsg(direction->loop->udp_fd, &message, MSG_DONTWAIT) >= 0)
            return 0;
        int error = errno;
        if (error == EINTR)
            continue;
        bool full = error == EAGAIN || error == ENOBUFS;
        if (!full || waits++ == PATIENCE || !wait_writable(direction->loop)) {
            if (is_dead(error))
                direction->dead = error;
            return error;
        }
    }
}

static enum sent edge_send(void *context, const struct send *send)
{
    int error = send_udp(context, send);
    if (error == 0)
        return SENT;
    /* Older kernels, and paths through IPsec, say EINVAL or EIO of a train that they can't send as one. */
    bool as_train = send->segment_size != 0 && (error == EINVAL || error == EIO);
    return error == EMSGSIZE || as_train ? SEND_TOO_BIG : SEND_REFUSED;
}

/* This thread alone sends, so the socket's setting is its own for the moment. */
static enum sent edge_send_fragmented(void *context, const struct send *send)
{
    struct direction *direction = context;
    int fd = direction->loop->udp_fd, no = IP_PMTUDISC_DONT, yes = IP_PMTUDISC_DO;
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &no, sizeof no);
    int error = send_udp(direction, send);
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &yes, sizeof yes);
    return error == 0 ? SENT : SEND_REFUSED;
}

/* The kernel tells it of connected sockets alone (ip(7), IP_MTU). */
static unsigned edge_path_mtu(void *context, uint32_t peer, uint16_t port)
{
    struct direction *direction = context;
    struct sockaddr_in local, to = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(peer),
    };
    socklen_t length = sizeof local;
    if (getsockname(direction->loop->udp_fd, (struct sockaddr *)&local, &length) != 0)
        return 0;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    int mtu = 0;
    local.sin_port = 0;
    length = sizeof mtu;
    if (bind(fd, (struct sockaddr *)&local, sizeof local) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &length) != 0)
        mtu = 0;
    close(fd);
    return mtu > 0 ? (unsigned)mtu : 0;
}

static bool edge_write_message(void *context, const uint8_t *frame, size_t length)
{
    struct iovec piece = {.iov_base = (void *)frame, .iov_len = length};
    return write_tun(context, &piece, 1);
}

static double edge_now(void *context)
{
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Drains the TUN into the engine.  0 when it is empty, EINPROGRESS when it may not be, or what is wrong. */
static int drain_tun(struct direction *direction, const struct outgoing_edge *edge, uint8_t *arena, size_t *end)
{
    struct outgoing *outgoing = &direction->loop->engine->outgoing;
    for (unsigned i = 0; i < READS_BETWEEN_GLANCES; i++) {
        if (outgoing->train.packets == 0 || *end > ARENA - IPV4_MAX_PACKET)
            *end = 0;
        uint8_t vnet[VNET_HEADER], *packet = arena + *end;
        struct iovec pieces[2] = {
            {.iov_base = vnet, .iov_len = VNET_HEADER},
            {.iov_base = packet, .iov_len = IPV4_MAX_PACKET},
        };
        size_t header = outgoing->tun_offload ? VNET_HEADER : 0;
        int skip = header != 0 ? 0 : 1;
        ssize_t length = readv(direction->loop->tun_fd, pieces + skip, 2 - skip);
        if (length < 0 && errno == EAGAIN)
            return 0;
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return errno;
        outgoing_take_up(outgoing);
        size_t packet_length = (size_t)length > header ? (size_t)length - header : 0;
        *end += outgoing_packet(outgoing, edge, header != 0 ? vnet : NULL, packet, packet_length);
        if (direction->dead != 0)
            return direction->dead;
    }
    return EINPROGRESS;
}

static int carry_out(struct direction *direction, uint8_t *arena)
{
    struct loop *loop = direction->loop;
    struct outgoing *outgoing = &loop->engine->outgoing;
    const struct outgoing_edge edge = {
        .send = edge_send,
        .send_fragmented = edge_send_fragmented,
        .path_mtu = edge_path_mtu,
        .write = edge_write_message,
        .now = edge_now,
        .context = direction,
    };
    size_t end = 0;
    for (;;) {
        int state = drain_tun(direction, &edge, arena, &end);
        if (state == 0)
            outgoing_flush(outgoing, &edge);
        if (state != 0 && state != EINPROGRESS)
            return state;
        if (direction->dead != 0)
            return direction->dead;
        switch (wait_readable(loop, loop->tun_fd, loop->tx_wake_fd, state == 0)) {
        case WAKE_STOP:
            outgoing_flush(outgoing, &edge);
            return 0;
        case WAKE_FAILED:
            return errno;
        case WAKE_READ:
            outgoing_take_up(outgoing);
        }
    }
}

int loop_run_tx(struct loop *loop)
{
    if (!claim(&loop->engine->outgoing_claimed))
        return EBUSY;
    struct direction direction = {.loop = loop};
    uint8_t *arena = malloc(ARENA);
    int error = arena != NULL ? carry_out(&direction, arena) : ENOMEM;
    train_clear(&loop->engine->outgoing.train);
    free(arena);
    release(&loop->engine->outgoing_claimed);
    return error;
}

static bool edge_write(void *context, const struct iovec *pieces, size_t count)
{
    return write_tun(context, pieces, count);
}

struct inbox {
    unsigned wanted; /* how many to read next, by what the last ones were */
    struct mmsghdr messages[BATCH];
    struct iovec pieces[BATCH];
    struct sockaddr_in senders[BATCH];
    struct {
        _Alignas(struct cmsghdr) uint8_t space[CMSG_SPACE(sizeof(int))];
    } controls[BATCH];
    uint8_t datagrams[BATCH][DATAGRAM];
};

/* Makes the first so many messages ready to be received, each time, as recvmmsg writes into them. */
static void make_ready(struct inbox *inbox, int message_count)
{
    for (int i = 0; i < message_count; i++) {
        inbox->pieces[i] = (struct iovec){.iov_base = inbox->datagrams[i], .iov_len = DATAGRAM};
        inbox->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &inbox->senders[i],
            .msg_namelen = sizeof inbox->senders[i],
            .msg_iov = &inbox->pieces[i],
            .msg_iovlen = 1,
            .msg_control = &inbox->controls[i],
            .msg_controllen = sizeof inbox->controls[i],
        };
    }
}

/* Of a datagram that UDP_GRO joined; 0 for any other. */
static size_t find_segment_size(struct msghdr *message)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    while (control != NULL && (control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO))
        control = CMSG_NXTHDR(message, control);
    if (control == NULL)
        return 0;
    int size;
    memcpy(&size, CMSG_DATA(control), sizeof size);
    return size > 0 ? (size_t)size : 0;
}

/* Drains the socket into the engine; as drain_tun. */
static int drain_udp(struct direction *direction, const struct incoming_edge *edge, struct inbox *inbox)
{
    struct incoming *incoming = &direction->loop->engine->incoming;
    for (unsigned reads = 0; reads < READS_BETWEEN_GLANCES; reads += BATCH) {
        int received = recvmmsg(direction->loop->udp_fd, inbox->messages, inbox->wanted, MSG_DONTWAIT, NULL);
        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0 && (is_dead(errno) || errno == EINVAL))
            return errno;
        if (received <= 0)
            return 0; /* empty, or an error that an earlier datagram met, which is cleared by now */
        incoming_take_up(incoming);
        inbox->wanted = BATCH;
        for (int i = 0; i < received; i++) {
            size_t segment_size = find_segment_size(&inbox->messages[i].msg_hdr);
            incoming_datagram(incoming, edge, ntohl(inbox->senders[i].sin_addr.s_addr), segment_size,
                              inbox->datagrams[i], inbox->messages[i].msg_len);
            if (segment_size != 0)
                inbox->wanted = BATCH_OF_TRAINS;
        }
        incoming_flush(incoming, edge);
        make_ready(inbox, received);
        if (direction->dead != 0)
            return direction->dead;
    }
    return EINPROGRESS;
}

static int carry_in(struct direction *direction, struct inbox *inbox)
{
    struct loop *loop = direction->loop;
    const struct incoming_edge edge = {.write = edge_write, .context = direction};
    inbox->wanted = BATCH;
    make_ready(inbox, BATCH);
    for (;;) {
        int state = drain_udp(direction, &edge, inbox);
        if (state != 0 && state != EINPROGRESS)
            return state;
        switch (wait_readable(loop, loop->udp_fd, loop->rx_wake_fd, state == 0)) {
        case WAKE_STOP:
            return 0;
        case WAKE_FAILED:
            return errno;
        case WAKE_READ:
            incoming_take_up(&loop->engine->incoming);
        }
    }
}

int loop_run_rx(struct loop *loop)
{
    if (!claim(&loop->engine->incoming_claimed))
        return EBUSY;
    struct direction direction = {.loop = loop};
    struct inbox *inbox = malloc(sizeof *inbox);
    int error = inbox != NULL ? carry_in(&direction, inbox) : ENOMEM;
    loop->engine->incoming.superpacket.count = 0;
    free(inbox);
    release(&loop->engine->incoming_claimed);
    return error;
}
