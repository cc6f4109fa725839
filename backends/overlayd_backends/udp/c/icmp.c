/* See icmp.h. */
#include "icmp.h"

#include "checksum.h"

#define UNREACHABLE 3 /* RFC 792 */
#define PRECEDENCE 0xc0 /* internetwork control, RFC 1812 section 4.3.2.5 */
#define TTL 64

/* Not of "this network", nor a loopback, group or reserved address (RFC 1122 section 3.2.1.3). */
static bool is_host(uint32_t address)
{
    uint32_t net = address >> 24;
    return net > 0 && net < 224 && net != 127;
}

/* The types of RFC 792 that report an error. */
static bool is_error(uint8_t type)
{
    switch (type) {
    case 3: /* unreachable */
    case 4: /* source quench */
    case 5: /* redirect */
    case 11: /* time exceeded */
    case 12: /* parameter problem */
        return true;
    default:
        return false;
    }
}

bool icmp_may_tell(const uint8_t *packet, const struct ipv4 *ip)
{
    if (ip->fragment & IPV4_FRAGMENT_OFFSET || !is_host(ip->source) || !is_host(ip->destination))
        return false;
    if (ip->protocol != PROTOCOL_ICMP)
        return true;
    return ip->total_length > ip->header_length && !is_error(packet[ip->header_length]);
}

size_t icmp_unreachable(uint8_t message[ICMP_MAX_PACKET], const uint8_t *packet, const struct ipv4 *ip,
                        enum unreachable code, uint16_t mtu)
{
    size_t quoted = (size_t)ip->header_length + ICMP_QUOTED;
    if (quoted > ip->total_length)
        quoted = ip->total_length;
    size_t length = IPV4_MIN_HEADER + ICMP_HEADER + quoted;
    uint8_t *icmp = message + IPV4_MIN_HEADER;

    memset(message, 0, IPV4_MIN_HEADER + ICMP_HEADER);
    message[0] = 0x45;
    message[IPV4_TOS] = PRECEDENCE;
    store_be16(message + IPV4_TOTAL_LENGTH, (uint16_t)length);
    store_be16(message + IPV4_FRAGMENT, IPV4_DONT_FRAGMENT);
    message[IPV4_TTL] = TTL;
    message[IPV4_PROTOCOL] = PROTOCOL_ICMP;
    store_be32(message + IPV4_SOURCE, ip->destination);
    store_be32(message + IPV4_DESTINATION, ip->source);
    finish_ip_checksum(message, IPV4_MIN_HEADER);

    icmp[0] = UNREACHABLE;
    icmp[1] = (uint8_t)code;
    store_be16(icmp + 6, mtu);
    memcpy(icmp + ICMP_HEADER, packet, quoted);
    sum_store(icmp + 2, (uint16_t)~sum_fold(sum_bytes(icmp, ICMP_HEADER + quoted, 0)));
    return length;
}

bool allowance_take(struct allowance *allowance, double now)
{
    if (now - allowance->began >= 1) {
        allowance->began = now;
        allowance->told = 0;
    }
    if (allowance->told == ICMP_PER_SECOND)
        return false;
    allowance->told++;
    return true;
}
