"""Transcription factors by the names of their families.

Gene symbols follow families: HGNC names human genes, and mouse symbols differ in capitals alone for nearly all of
these. The families below are the ones with a DNA-binding domain of Lambert et al., Cell 172, 650-665 (2018); they hold
about nine of ten human factors of DoRothEA. A default for those without a list of their own: `perturb` and `infer_grn`
take any list instead.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# zinc fingers, homeodomains, helix-loop-helix, leucine zippers, nuclear receptors, then the rest
_FAMILIES = r"""
ZNF\d+[A-Z]? ZFP\d+[A-Z0-9]* ZSCAN\d+[A-Z]? ZKSCAN\d+ ZBTB\d+[A-Z]? ZFHX\d ZEB\d KLF\d+ SP[1-9]
EGR\d GLI[1-4] GLIS\d ZIC\d SNAI\d IKZF\d SALL\d BCL6B? BCL11[AB] PRDM\d+ WT1 CTCFL? YY[12] REST
HIC\d OSR\d OVOL\d GFI1B? PLAGL?\d? MAZ PATZ1 INSM\d FEZF\d CASZ1 VEZF1 MECOM TSHZ\d ADNP2?
HOX[A-D]\d+ PAX\d POU\d+F\d PITX\d LHX\d LMX1[AB] ISL\d NKX\d-?\d+ DLX\d SIX\d MEIS\d PBX\d PKNOX\d
IRX\d TGIF\d MSX\d MNX1 EMX\d EN[12] OTX\d CRX CDX\d PDX1 GSX\d GBX\d EVX\d BARX\d BARHL\d HHEX
HNF1[AB] HNF4[AG] ONECUT\d SATB\d CUX\d NANOG PROX\d RAX\d? VSX\d ARX ALX\d PRRX\d PHOX2[AB] SHOX\d?
UNCX VAX\d TLX\d HESX1 GSC\d? MIXL1 DRGX HOPX HMX\d BSX LBX\d MYOD1 MYOG MYF[56] NEUROD\d NEUROG\d
ASCL\d ATOH\d BHLH[AEB]\d+ HES\d HEY\d HEYL RBPJL? TBP(L\d)? ZF[XY] HINFP TCF(3|4|12|15|21|23|24)
TAL\d LYL1 TWIST\d HAND\d OLIG\d MESP\d NHLH\d PTF1A FERD3L MYC[NL]? MAX MXD\d MXI1 MNT MLX(IPL?)?
MITF TFE[3BC] TFEB USF\d SREBF\d HIF\dA EPAS1 ARNT\d? ARNTL\d? BMAL\d CLOCK NPAS\d AHR AHRR SIM\d
FIGLA SCX MSC MSGN1 TCFL5 JUN[BD]? FOS[BL]?\d? FOSL\d BATF\d? ATF\d CREB\d?(L\d)? CREM CEBP[ABDEGZ]
MAF[ABFGK]? NFE2(L\d)? BACH\d NRL DBP TEF HLF NFIL3 XBP1 DDIT3 JDP2 NR\d[A-Z]\d ESR\d ESRR[ABG] AR
PGR RAR[ABG] RXR[ABG] ROR[ABC] PPAR[ADG] THR[AB] VDR SOX\d+ SRY LEF1 TCF7(L\d)? HMGA\d CIC
FOX[A-S]\d[A-Z]? ETS\d ETV\d ELK\d ELF\d ERG FLI1 FEV SPI[1BC] GABPA EHF SPDEF GATA\d TRPS1 RUNX\d
STAT\d[AB]? IRF\d NFKB\d REL[AB]? NFAT(C\d|5) SMAD\d E2F\d TFDP\d TBX\d+[A-Z]? TBXT T TBR1 EOMES MGA
MEF2[A-D] SRF TEAD\d TFAP2[A-E] TFAP4 TFCP2(L1)? GRHL\d UBP1 NFI[ABCX] NFY[ABC] NRF1 RFX\d
HSF[1-5Y]\d? HSFX\d MYB(L\d)? MYT1L? ST18 TP(53|63|73) TRP(53|63|73) DMRT[A-C]?\d EBF\d
ARID[3-5][AB] AEBP[12] MTF\d GCM\d GTF2I(RD\d)? KMT2[AB] MECP2 MBD\d AIRE DEAF1 SP1[04]0L? CENPB
POGZ TERF\d THAP\d+ ZHX\d HMBOX1 HOMEZ TOX\d? NFX1 NFXL1 BPTF BAZ2[AB] SETDB\d
"""
_PATTERN = re.compile("|".join(f"(?:{family})" for family in _FAMILIES.split()))


def is_transcription_factor(symbol: str) -> bool:
    """Whether a human or mouse gene symbol names a transcription factor of a known family.

    Examples
    --------
    >>> is_transcription_factor("Pdx1"), is_transcription_factor("INS")
    (True, False)
    """
    return _PATTERN.fullmatch(symbol.upper()) is not None


def transcription_factors_among(symbols: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of the transcription factors in a list of gene symbols.

    Examples
    --------
    >>> transcription_factors_among(["INS", "PAX6", "Sox2"]).tolist()
    [1, 2]
    """
    return np.asarray([i for i, symbol in enumerate(symbols) if is_transcription_factor(symbol)], dtype=np.int64)
