/* The baseline: an overlay as plain as can be, one packet a system call, one thread for both directions.
 *
 *     plain DEVICE PORT PEER
 *
 * makes the TUN device DEVICE, prints "ready", and carries bare IP packets between it and UDP port PORT of PEER
 * until standard input ends.  This is how flannel's udp backend works, without its table and its TTL: no offload,
 * no batch, the socket's buffers as the kernel makes them, so that whatever another datapath does better shows as a
 * ratio to this one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PACKET_MAX = 65535,
    BURST = 64 /* packets of one direction before the other has its turn */
};

static void fail(const char *what)
{
    fprintf(stderr, "plain: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tun(const char *name)
{
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0)
        fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        fail(name);
    return tun;
}

static int open_udp(const char *port, const char *peer)
{
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    if (udp < 0 || bind(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail("UDP socket");
    if (inet_pton(AF_INET, peer, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail(peer);
    }
    if (connect(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail(peer);
    return udp;
}

/* What waits on one side to the other.  What the other side refuses is lost, as on any wire. */
static void carry(int from, int to)
{
    static char packet[PACKET_MAX];
    for (int i = 0; i < BURST; i++) {
        ssize_t size = read(from, packet, sizeof packet);
        if (size > 0)
            size = write(to, packet, (size_t)size);
        else if (size < 0 && errno != EAGAIN && errno != ECONNREFUSED) /* refused: the peer is not up yet */
            fail("read");
        else
            return;
    }
}

int main(int count, char **argument)
{
    if (count != 4) {
        fputs("usage: plain DEVICE PORT PEER\n", stderr);
        return 2;
    }
    int tun = open_tun(argument[1]), udp = open_udp(argument[2], argument[3]);
    struct pollfd sides[] = {{tun, POLLIN, 0}, {udp, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (poll(sides, 3, -1) < 0 && errno != EINTR)
            fail("poll");
        if (sides[2].revents)
            return 0;
        if (sides[0].revents)
            carry(tun, udp);
        if (sides[1].revents)
            carry(udp, tun);
    }
}
