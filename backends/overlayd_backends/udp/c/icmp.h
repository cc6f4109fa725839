/* What the datapath tells a sender: ICMP errors of its own (RFC 792, RFC 1122 section 3.2.2, RFC 1812 section
 * 4.3.2).
 *
 * They seem to come from the address that the packet was for: the kernel would discard one of its own addresses as
 * a martian.
 */
#ifndef OVERLAYD_ICMP_H
#define OVERLAYD_ICMP_H

#include "packet.h"

/* Codes of type 3, destination unreachable (RFC 792). */
enum unreachable {
    NET_UNREACHABLE = 0,
    FRAGMENTATION_NEEDED = 4,
};

#define ICMP_HEADER 8
#define ICMP_QUOTED 8     /* bytes behind the header that are quoted, RFC 792 */
#define ICMP_PER_SECOND 100
#define SMALLEST_MTU 68   /* RFC 791 section 3.2: every link carries this */
#define ICMP_MAX_PACKET (IPV4_MIN_HEADER + ICMP_HEADER + 60 + ICMP_QUOTED)

/* RFC 1122 section 3.2.2: never about an ICMP error, a later fragment, or what is not between two hosts. */
bool icmp_may_tell(const uint8_t *packet, const struct ipv4 *ip);

/* Writes the message about this packet and returns its length.  `mtu` in bytes is what the next hop takes (RFC
 * 1191 section 4), 0 for the codes that have none. */
size_t icmp_unreachable(uint8_t message[ICMP_MAX_PACKET], const uint8_t *packet, const struct ipv4 *ip,
                        enum unreachable code, uint16_t mtu);

/* So many messages in a second, which begins with the first message after the one before ended. */
struct allowance {
    double began;
    unsigned told;
};

#define ALLOWANCE_INIT {.began = -1e300}

/* Whether one more is allowed; `now` in seconds of any clock that does not go back. */
bool allowance_take(struct allowance *allowance, double now);

#endif
