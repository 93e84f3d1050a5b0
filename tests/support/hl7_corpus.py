"""HL7 messages of all kinds that the gateway reads, in the order of a day on a ward."""

from tests.support.gateway import hl7, oru

_OBX = "OBX|{n}|{kind}|{code}||{value}|{unit}|||||{status}|||{at}"


def obx(
    code: str = "8867-4^HR^LN",
    value: str = "80",
    unit: str = "/min",
    status: str = "F",
    at: str = "20261127100000",
    kind: str = "NM",
    n: int = 1,
) -> str:
    """An OBX segment."""
    return _OBX.format(n=n, kind=kind, code=code, value=value, unit=unit, status=status, at=at)


def adt(
    event: str,
    patient: str = "P1",
    bed: str = "ICU^1^1",
    at: str = "20261127090000",
    visit: str = "",
) -> bytes:
    """An ADT message."""
    return hl7(
        f"ADT^{event}",
        f"EVN|{event}|{at}",
        f"PID|||{patient}^^^H^MR||Doe^Jane||19601231|F",
        f"PV1||I|{bed}||||||||||||||||{visit}",
    )


def merge(survivor: str, prior: str, event: str = "A40") -> bytes:
    """A merge of `prior` into `survivor`."""
    return hl7(
        f"ADT^{event}",
        f"EVN|{event}|20261127180000",
        f"PID|||{survivor}^^^H^MR",
        f"MRG|{prior}^^^H^MR",
    )


def corpus() -> list[bytes]:
    """More than 60 messages, with every event, result status, type of value, character set and
    delimiter.
    """
    order = "OBR|1||F{}^MON|||||20261127095500"
    messages = [
        adt("A01", visit="12345678901234567890^^^H^VN"),
        adt("A08", bed="ICU^2^1"),
        adt("A31"),
        adt("A04", "P2", "ED^1^1"),
        adt("A02", "P2", "ICU^3^1", "20261127093000"),
        oru(order.format(1), obx()),
        oru(order.format(1), obx(value="82")),  # another value is a correction
        oru(order.format(1), obx(value="83", status="C")),
        oru(order.format(2), obx(status="P", value="70", at="20261127101000")),
        oru(order.format(2), obx(status="F", value="70", at="20261127101000"), control="2"),
        oru(order.format(3), obx(status="R", value="71", at="20261127101500")),
        oru(order.format(3), obx(status="D", value="", at="20261127101500")),
        oru(order.format(4), obx(value="72", at="20261127102000")),
        oru(order.format(4), obx(status="W", value="72", at="20261127102000")),
        oru(order.format(5), obx(value="73", at="20261127102500")),
        oru(order.format(5), obx(status="X", value="", at="20261127102500")),
        oru(order.format(6), obx(value="74", at="20261127103000")),
        oru(order.format(6), obx(value='""', at="20261127103000")),
        oru(order.format(7), obx(status="I", value="")),
        oru(order.format(8), obx(status="?", value="1")),
        oru(obx(value="<15")),
        oru(obx(value="")),
        oru(obx(kind="SN", value="^66", at="20261127104000")),
        oru(obx(kind="SN", value="=^67", at="20261127104100")),
        oru(obx(kind="SN", value="<^15")),
        oru(obx(kind="SN", value="^10^-^20")),
        oru(obx(kind="ST", value="68", at="20261127104200")),
        oru(obx(kind="ST", value="see note")),
        oru(obx(kind="TX", value="free text")),
        oru(obx(value="80~81")),
        oru(obx(value="1e9999")),
        oru(obx("8310-5^Temp^LN", "98.6", "[degF]")),
        oru(obx("8310-5^Temp^LN", "37.2", "Cel", at="20261127105000")),
        oru(obx("8310-5^Temp^LN", "37.2", "")),  # rejected, because it has no unit
        oru(obx("8310-5^Temp^LN", "37.2", "furlong")),
        oru(obx("8480-6^SBP^LN", "16", "kPa")),
        oru(obx("150021^MDC_PRESS_BLD_NONINV_SYS^MDC", "120", "266016^MDC_DIM_MMHG^MDC")),
        oru(obx("2345-7^Glucose^LN", "5.5", "mmol/L")),
        oru(obx("2160-0^Creatinine^LN", "88.4", "umol/L")),
        oru(obx("19994-3^FiO2^LN", "40", "%")),
        oru(obx("X1^local^L^8867-4^HR^LN", "77", "bpm", at="20261127105500")),
        oru(obx("HR^Heart rate^L", "78", "bpm", at="20261127105600")),
        oru(obx("NIRS^Own^L", "55", "%")),
        oru(obx(at="20261127")),  # no hour
        oru("OBR|1||F9|||||20261127110000", obx(at="", value="79")),
        oru(obx(at="20261127120000+0000", value="90")),
        oru(obx(at="20261025023000", value="91")),  # rejected, because it is before the admission
        oru(obx(at="20260329023000", value="92")),
        oru(obx(at="20261127113000.1234", value="93"), "NTE|1||note", "ZZZ|own|segment"),
        oru(*[obx(value=str(60 + n), n=n, at=f"202611271200{n:02}") for n in range(1, 11)]),
        hl7("ORU^R32", "PID|||P1^^^H^MR", obx(value="94", at="20261127121000")),
        hl7("ORU^R01", "PID|||P1^^^H^MR~99^^^NAT^NI", obx(value="95", at="20261127121100")),
        hl7("ORU^R01", "PID|||\\X50\\1^^^H^MR", obx(value="96", at="20261127121200")),
        hl7("ORU^R01", obx()),  # no patient
        hl7("SIU^S12", "SCH|1"),
        hl7("ADT^A60", "PID|||P1^^^H^MR"),
        b"MSH#*!@%#MON#WARD###20261127120000##ORU*R01#9#P#2.5\rPID###P1***H*MR\r"
        b"OBX#1#NM#8867-4*HR*LN##97#/min#####F###20261127121300\r",
        oru(obx("TÜR^Ü^L", "1"), bed="ICU^Süd^1").decode().encode("latin-1"),
        hl7("ORU^R01", "PID|||P3^^^H^MR||M\u00fcller^J\u00f6rg", "PV1||I|ICU^4", obx(value="61")),
        oru(obx(value="98", at="20261127122000")).replace(b"\r", b"\n"),
        oru(obx(value="99", at="20261127122100")).replace(b"\r", b"\r\n"),
        oru("NTE|1||a lone \x1c separator", obx(value="100", at="20261127122200")),
        b"FHS|^~\\&\rBHS|^~\\&\r"
        + oru(obx(value="101", at="20261127122300"), control="B1")
        + oru(obx(value="102", at="20261127122400"), control="B2")
        + b"BTS|2\rFTS|1\r",
        adt("A02", "P2", "WARD^1^1", "20261127140000"),
        adt("A12", "P2", "ICU^3^1", "20261127141000"),
        adt("A03", "P2", at="20261127150000"),
        oru(obx(value="64", at="20261127130000"), patient="P2"),  # late
        adt("A13", "P2", "ICU^3^2", "20261127151000"),
        adt("A01", "P4", "ICU^5^1", "20261127100000"),
        oru(obx(value="65", at="20261127110000"), patient="P4"),
        adt("A11", "P4", "ICU^5^1", "20261127120000"),
        oru(obx(value="66", at="20261127110000"), patient="P5"),
        oru("OBR|1||F50", obx(value="67", at="20261127111000"), patient="P5"),
        merge("P1", "P5"),
        oru("OBR|1||F50", obx(value="69", at="20261127111000", status="C"), patient="P5"),
        merge("P1", "P3", "A34"),
        merge("P1", "P1"),
        adt("A03", "P9"),
    ]
    assert len(messages) >= 60
    return messages
